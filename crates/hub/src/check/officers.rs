//! What a check says of the secretariat's people: whose profiles are in the folder, whether there are officers enough for the quorum, and
//! what waits for the signatures of more of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use concord_identity::{CERTIFICATE_FILE, Profile};
use concord_model::{Identity, Name, Role};
use concord_server::checks::{Check, certificate_lasts};
use concord_server::holders::Holders;
use concord_server::{Clock as _, MESSAGE_SIZE_MAX_BYTES, SystemClock};
use concord_wire::proto::operations::v1::ListApprovalsRequest;
use concord_wire::proto::operations::v1::registry_service_client::RegistryServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::config::Config;
use crate::init::of_name;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const OFFICERS: &str = "officers";

/// What the folder says of the secretariat's officers and operators.
pub(super) struct People {
    /// Why one cannot be read; none where its certificate has yet to come.
    profiles: Vec<(Identity, PathBuf, Result<Profile, Option<String>>)>,
    /// Officers with a certificate that counts, by the folder and by the anchor's register.
    officers: Result<BTreeSet<Name>, String>,
}

impl People {
    /// Blocks for as long as the disk does.
    pub(super) fn read(dir: &Path, config: &Config) -> Self {
        let holders = of_name(dir, &config.name);
        let mut people = holders.everybody();
        people.retain(|one| matches!(one.role, Role::Officer | Role::Operator));
        let profiles = people.into_iter().filter_map(|one| {
            let folder = holders.folder_of(&one).ok()?;
            if !folder.join(CERTIFICATE_FILE).exists() {
                return Some((one, folder, Err(None)));
            }
            let read = Profile::load(&folder).map_err(|error| Some(error.to_string()));
            Some((one, folder, read))
        });
        Self { profiles: profiles.collect(), officers: that_count(&holders) }
    }

    /// The first profile of this role that can be read.
    pub(super) fn profile(&self, role: Role) -> Option<&Profile> {
        self.profiles.iter().find_map(|(of, _, read)| read.as_ref().ok().filter(|_| of.role == role))
    }

    /// Each profile that is here; another one may be with whoever it belongs to.
    pub(super) fn profiles(&self) -> impl Iterator<Item = Check> {
        self.profiles.iter().map(|(of, folder, read)| {
            let name = if of.role == Role::Officer { "officer-profile" } else { "operator-profile" };
            match read {
                Err(None) => Check::untried(name, format!("the certificate of {of} has yet to come")),
                Err(Some(why)) => {
                    let next = "put the folder back from where it is kept, or move it away: it need be here only for commands of the secretariat";
                    Check::failed(name, why, next)
                }
                Ok(profile) => {
                    let what = format!("{} in {}", profile.own().identity, folder.display());
                    certificate_lasts(name, &what, profile.own().not_after)
                }
            }
        })
    }

    /// Whether those who must sign what takes several can.
    pub(super) fn are_enough(&self, dir: &Path, config: &Config) -> Check {
        let quorum = config.quorum.get();
        let officers = match &self.officers {
            Err(why) => return Check::untried(OFFICERS, format!("they cannot be counted: {why}")),
            Ok(officers) => officers,
        };
        let known = officers.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "nobody" } else { &known };
        let what = format!("{quorum} must sign (`quorum` in hub.toml); with a certificate that counts: {known}");
        let check = if officers.len() < quorum as usize {
            let next = format!(
                "make another one with `concord officer add NAME --dir {}`, unless the anchor is elsewhere and made more",
                dir.display()
            );
            Check::warning(OFFICERS, what, next)
        } else {
            Check::ok(OFFICERS, what)
        };
        check.with("quorum", quorum).with("officers", officers.len())
    }
}

/// By name, since signatures count by name.
fn that_count(holders: &Holders) -> Result<BTreeSet<Name>, String> {
    let all = holders.list(Some(Role::Officer), SystemClock.now()).map_err(|error| error.to_string())?;
    Ok(all.into_iter().filter(|held| held.state == "valid").map(|held| held.holder.name).collect())
}

/// What the hub that serves says that it waits for.
pub(super) async fn approvals(channel: Channel) -> Check {
    const NAME: &str = "approvals";
    let waiting = match asked(channel).await {
        Ok(waiting) => waiting,
        // Of another version, or it knows this officer no more.
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::PermissionDenied) => {
            return Check::untried(NAME, format!("the hub does not say: {}", status.message()));
        }
        Err(status) => return Check::failed(NAME, status.message(), "see whether the hub is well: `concord status`"),
    };
    if waiting == 0 {
        return Check::ok(NAME, "nothing waits for officers' signatures").with("waiting", waiting);
    }
    let what = format!("for signatures of other officers wait: {waiting}");
    Check::warning(NAME, what, "another officer looks with `concord approval list`, and approves or rejects")
        .with("waiting", waiting)
}

async fn asked(channel: Channel) -> Result<usize, Status> {
    let mut client = RegistryServiceClient::new(channel).max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES);
    let asked = tokio::time::timeout(CALL_TIMEOUT, client.list_approvals(ListApprovalsRequest {}));
    let answer = asked.await.map_err(|_| Status::deadline_exceeded("it did not answer in time"))?;
    let listed = answer?.into_inner();
    Ok(listed.waiting.len() + listed.more as usize)
}
