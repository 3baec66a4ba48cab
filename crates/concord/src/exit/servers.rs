//! Failures of the library calls that make and run hubs and nodes.

use concord_backup::{BackupError, StandingError};
use concord_hub::HubError;
use concord_identity::{FileError, IssueError};
use concord_model::Reason;
use concord_node::NodeError;
use concord_server::FolderError;
use concord_server::holders::HoldersError;

use super::{Exit, Failure};

/// What to do about a file or folder that cannot be read or written.
const SEE_PLACE: &str = "see whether the place is there, lets this user in and has room, then run it again";
/// What to do about a data folder that is none, or not the one that was meant.
const GIVE_FOLDER: &str = "give --dir the folder that `concord hub init` or `concord node init` made";

/// What to do about settings that do not parse, or say what they may not.
const CORRECT_SETTINGS: &str = "correct what is named, then run it again";

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        of_backup(&error)
    }
}

fn of_backup(error: &BackupError) -> Failure {
    let reason = match error {
        BackupError::NotABackup { .. } => "BACKUP_UNKNOWN",
        BackupError::OtherFormat { .. } => "BACKUP_FORMAT",
        BackupError::Damaged { .. } => "BACKUP_DAMAGED",
        BackupError::OfAnother { .. } => "BACKUP_OF_ANOTHER",
        BackupError::KeyAbsent { .. } => "KEY_ABSENT",
        BackupError::Changed { .. } => Reason::BackupConflict.code(),
        BackupError::Disk { .. } => "FILE",
        BackupError::Gone => "GONE",
    };
    let help = match error {
        BackupError::OfAnother { .. } => {
            "give the backup that this very hub or node wrote (`concord hub backup`, `concord node backup`), or --dir the folder that it is of"
        }
        BackupError::Disk { .. } => SEE_PLACE,
        _ => "",
    };
    Failure::failed(reason, error.to_string()).help(help)
}

fn of_standing(error: &StandingError) -> Failure {
    let reason = match error {
        StandingError::Interrupted { .. } => "RESTORE_INTERRUPTED",
        StandingError::Absent { .. } => "JOURNAL_ABSENT",
        StandingError::Holds { .. } => "JOURNAL_HOLDS",
    };
    Failure::failed(reason, error.to_string())
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let message = error.to_string();
        match &error {
            HubError::Argument(_) | HubError::Seed(_) => Self::new(Exit::Usage, "ARGUMENT_INVALID", message),
            // The units do not start a server anew after this exit code: its settings stay as they are until a person corrects them.
            HubError::Config { .. } => Self::new(Exit::Usage, "CONFIG_INVALID", message).help(CORRECT_SETTINGS),
            HubError::Folder(error) => of_folder(error),
            HubError::Holders(error) => of_holders(error),
            HubError::CertificatesAwaited { .. } => Self::failed("CERTIFICATES_AWAITED", message),
            HubError::Backup(error) => of_backup(error),
            HubError::Standing(error) => of_standing(error),
            HubError::OtherHub { .. } => Self::failed("JOURNAL_OF_ANOTHER", message),
            HubError::Bind(_) => {
                Self::failed("ADDRESS_UNUSABLE", message).help("choose another address, or free this one")
            }
            HubError::Open(_) | HubError::Read(_) | HubError::Append(_) | HubError::Stored(_) => {
                Self::failed("JOURNAL_UNUSABLE", message).help("see what `concord verify` says of the folder")
            }
            _ => Self::failed("HUB_FAILED", message).help("the log has more"),
        }
    }
}

impl From<HoldersError> for Failure {
    fn from(error: HoldersError) -> Self {
        of_holders(&error)
    }
}

fn of_holders(error: &HoldersError) -> Failure {
    let exit = match error {
        HoldersError::Unfit(_)
        | HoldersError::NoLeaf
        | HoldersError::AnchorOther { .. }
        | HoldersError::AnchorUncompared { .. }
        | HoldersError::FingerprintMismatch { .. }
        | HoldersError::TakenBack(_)
        | HoldersError::KeyOther { .. }
        | HoldersError::Request { .. }
        | HoldersError::Known(_)
        | HoldersError::IssuedBefore(_)
        | HoldersError::Unknown(_)
        | HoldersError::NotOfHere { .. } => Exit::Refused,
        HoldersError::AnchorUnknown | HoldersError::AnchorsSeveral(_) | HoldersError::Name(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    let help = match error {
        HoldersError::AnchorKey { .. } => {
            "bring the folder anchor/ back. Where the anchor is elsewhere: `node renew --csr` (`hub renew --csr`), or `add` and `renew` with \
             --request, then `concord anchor sign` there; to take back, `concord anchor revoke ROLE/NAME` there"
        }
        HoldersError::KeyUnregistered { .. } => {
            "any tool makes one, such as `openssl req -new -key key.pem -subj /CN=renewal -out renewal.csr` where the profile is"
        }
        HoldersError::TakenBack(_) => {
            "`officer add`, `operator add` or `agency add` under another name makes a new key; `remove` again puts a profile away that was left"
        }
        HoldersError::Known(_) => "`renew` makes its certificate anew; `list --dir` shows who has one",
        HoldersError::IssuedBefore(_) => "`concord anchor list` shows the names that were given",
        HoldersError::Issue(IssueError::KeyTakenBack { .. }) => KEY_TAKEN_BACK,
        HoldersError::Unknown(_) => {
            "`list --dir` shows who has one; where another anchor followed the one that issued it, and the folder of that one is not here: bring it back as anchor-before beside anchor/"
        }
        HoldersError::KeyOther { .. } => {
            "move that key.pem away, since its holder keeps the new one, and run this again; or renew without --csr, for the key that is here"
        }
        HoldersError::AnchorUncompared { .. } => "`concord anchor sign` shows it; ask for it by telephone",
        HoldersError::AnchorOther { .. } => {
            "use the anchor that this folder began with; a new folder that took a wrong one is made anew in another place"
        }
        HoldersError::Unfit(_) => {
            "have the authority put right what is missing, from the same requests, and run this again"
        }
        HoldersError::Request { .. } => {
            "give the requests in PEM, each for an Ed25519 key: the file that `concord node init --csr` or `node renew --csr` (`hub …`) or the \
             holder's own tool made"
        }
        HoldersError::File(_) => SEE_PLACE,
        _ => "",
    };
    Failure::new(exit, error.reason(), error.to_string()).help(help)
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        let reason = match &error {
            IssueError::AnchorExists(_) => "ANCHOR_EXISTS",
            IssueError::AnchorEnded(_) => "ANCHOR_ENDED",
            IssueError::KeyTakenBack { .. } => "KEY_TAKEN_BACK",
            IssueError::ForeignAnchor => "ANCHOR_FOREIGN",
            IssueError::File(_) => "FILE",
            _ => "ISSUE",
        };
        let help = match error {
            IssueError::File(_) => SEE_PLACE,
            IssueError::KeyTakenBack { .. } => KEY_TAKEN_BACK,
            _ => "",
        };
        Self::failed(reason, error.to_string()).help(help)
    }
}

const KEY_TAKEN_BACK: &str = "have its holder make a new key, and a request with it";

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::failed("FILE", error.to_string()).help(SEE_PLACE)
    }
}

fn of_folder(error: &FolderError) -> Failure {
    let (reason, help) = match error {
        FolderError::InUse { .. } => (
            "FOLDER_IN_USE",
            "stop that process (`systemctl stop concord-hub`, `concord-node`) and run this again; a backup is taken while it serves",
        ),
        FolderError::NotThere { .. } => ("FOLDER_ABSENT", GIVE_FOLDER),
        FolderError::NotEmpty { .. } => {
            ("FOLDER_NOT_EMPTY", "give --dir an empty folder, or one that is not there yet")
        }
        FolderError::OtherFormat { .. } => ("FOLDER_NOT_CONCORDS", "use the version of Concord that made it"),
        FolderError::NotConcords { .. } | FolderError::OtherKind { .. } => ("FOLDER_NOT_CONCORDS", GIVE_FOLDER),
        FolderError::File(_) | FolderError::Io { .. } => ("FOLDER_UNUSABLE", SEE_PLACE),
    };
    Failure::failed(reason, error.to_string()).help(help)
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let message = error.to_string();
        match &error {
            NodeError::Refused(refusal) => refusal.clone().into(),
            NodeError::Connect(error) => error.into(),
            NodeError::Folder(error) => of_folder(error),
            NodeError::Config { .. } => Self::new(Exit::Usage, "CONFIG_INVALID", message).help(CORRECT_SETTINGS),
            NodeError::Paper(_) | NodeError::Bundle(_) => Self::new(Exit::Refused, "PAPER_INVALID", message),
            NodeError::OtherParticipant { .. } => Self::new(Exit::Refused, "BUNDLE_OF_ANOTHER", message)
                .help("have the secretariat write the one of this state: `concord participant bundle CODE --out FILE`"),
            NodeError::OtherEnrolment { .. } => Self::new(Exit::Refused, "BUNDLE_OF_ANOTHER", message).help(
                "hand the secretariat this node's join-request.json for `concord participant enrol` (with --replace where another node of this \
                 state is enrolled), and join with the bundle of that",
            ),
            NodeError::JoinedBefore { .. } => Self::new(Exit::Refused, "BUNDLE_OF_ANOTHER", message)
                .help("for another hub make a new folder with `concord node init --dir`, and join with that"),
            NodeError::Holders(error) => of_holders(error),
            NodeError::CertificatesAwaited { .. } => Self::failed("CERTIFICATES_AWAITED", message),
            NodeError::Backup(error) => of_backup(error),
            NodeError::Standing(error) => of_standing(error),
            NodeError::Bind(_) => {
                Self::failed("ADDRESS_UNUSABLE", message).help("choose another address, or free this one")
            }
            NodeError::Open(_)
            | NodeError::Read(_)
            | NodeError::Append(_)
            | NodeError::Stored(_)
            | NodeError::Fold(_) => {
                Self::failed("JOURNAL_UNUSABLE", message).help("see what `concord verify` says of the folder")
            }
            _ => Self::failed("NODE_FAILED", message).help("the log has more"),
        }
    }
}
