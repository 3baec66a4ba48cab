//! Compares a method table with the comments of the protobuf files: both say who may call, and must say the same.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::Role;
use concord_wire::proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::methods::{HEALTH_AND_REFLECTION, MethodTable};

/// The field numbers of `service` in a file and of `method` in a service, as source locations name them.
const SERVICE_FIELD: i32 = 6;
const METHOD_FIELD: i32 = 2;
const CALLERS: &str = "Callers:";

/// What a server serves of the protobuf files.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// Full names: `concord.agency.v1.AgencyService`.
    pub services: &'a [&'a str],
    /// Methods of those services that are the other server's; they have no row.
    pub except: &'a [&'a str],
    /// Whom the listener's handshake lets in. A comment may name more roles: one file serves hub and nodes.
    pub roles: &'a [Role],
}

/// Every served RPC has a row, every row is served, and the roles of both are the same. Returns what differs.
pub fn check_against_descriptors(table: &MethodTable, served: &Served<'_>) -> Result<(), Vec<String>> {
    let commented = commented_roles().map_err(|error| vec![error])?;
    let mut wrong = Vec::new();

    for service in served.services {
        let prefix = format!("/{service}/");
        if !commented.keys().any(|method| method.starts_with(&prefix)) {
            wrong.push(format!("{service} is served, but no protobuf file has it"));
        }
    }
    for (method, roles) in &commented {
        if !is_served(method, served) {
            continue;
        }
        let Some(row) = table.row(method) else {
            wrong.push(format!("{method} is served, but has no row"));
            continue;
        };
        let roles = match roles {
            Ok(roles) => roles,
            Err(error) => {
                wrong.push(format!("{method}: {error}"));
                continue;
            }
        };
        let in_table: BTreeSet<Role> = row.iter().map(|allow| allow.role).collect();
        let in_comment: BTreeSet<Role> = roles.iter().copied().filter(|role| served.roles.contains(role)).collect();
        if in_table != in_comment {
            wrong.push(format!("{method}: the table lets in {in_table:?}, the comment {in_comment:?}"));
        }
    }
    for (method, _) in table.rows() {
        let everywhere = HEALTH_AND_REFLECTION.iter().any(|row| row.method == method);
        let served = everywhere || commented.contains_key(method) && is_served(method, served);
        if !served {
            wrong.push(format!("{method} has a row, but is not served"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// The methods of Concord's own services that take one message and answer with one.
pub(crate) fn unary_methods() -> Result<BTreeSet<String>, prost::DecodeError> {
    let mut unary = BTreeSet::new();
    for file in FileDescriptorSet::decode(DESCRIPTORS)?.file {
        for service in &file.service {
            for method in &service.method {
                if !method.client_streaming() && !method.server_streaming() {
                    unary.insert(path(&file, service.name(), method.name()));
                }
            }
        }
    }
    Ok(unary)
}

fn is_served(method: &str, served: &Served<'_>) -> bool {
    let service = method.trim_start_matches('/').split('/').next().unwrap_or_default();
    served.services.contains(&service) && !served.except.contains(&method)
}

type Roles = Result<BTreeSet<Role>, String>;

fn commented_roles() -> Result<BTreeMap<String, Roles>, String> {
    let files =
        FileDescriptorSet::decode(DESCRIPTORS).map_err(|error| format!("the descriptors do not parse: {error}"))?;
    let mut found = BTreeMap::new();
    for file in &files.file {
        for (service_index, service) in file.service.iter().enumerate() {
            for (method_index, method) in service.method.iter().enumerate() {
                let roles = roles_of(leading_comment(file, service_index, method_index));
                found.insert(path(file, service.name(), method.name()), roles);
            }
        }
    }
    Ok(found)
}

fn path(file: &FileDescriptorProto, service: &str, method: &str) -> String {
    format!("/{}.{service}/{method}", file.package())
}

fn leading_comment(file: &FileDescriptorProto, service: usize, method: usize) -> &str {
    let locations = file.source_code_info.as_ref().map_or([].as_slice(), |info| info.location.as_slice());
    let wanted = [SERVICE_FIELD, index(service), METHOD_FIELD, index(method)];
    locations.iter().find(|location| location.path == wanted).map_or("", |location| location.leading_comments())
}

fn index(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn roles_of(comment: &str) -> Roles {
    let line = comment.lines().find_map(|line| line.trim().strip_prefix(CALLERS));
    let line = line.ok_or_else(|| format!("its comment has no line '{CALLERS} …'"))?;
    let words = line.trim().trim_end_matches('.').split(',').map(str::trim);
    words
        .map(|word| {
            let role = Role::ALL.into_iter().find(|role| role.as_str() == word);
            role.ok_or_else(|| format!("its comment names '{word}', which is no role"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use concord_model::ParticipantCode;

    use super::*;
    use crate::methods::{Allow, Row, Whose};

    const OFFICER: &[Allow] = &[Allow { role: Role::Officer, whose: Whose::AnyParticipant }];
    const OPERATOR: &[Allow] = &[Allow { role: Role::Operator, whose: Whose::AnyParticipant }];
    const BOTH: &[Allow] = &[
        Allow { role: Role::Officer, whose: Whose::OwnParticipant },
        Allow { role: Role::Operator, whose: Whose::OwnParticipant },
    ];
    const STATUS: Row = Row { method: "/concord.operations.v1.OperationsService/GetStatus", allow: BOTH };
    const ADD: Row = Row { method: "/concord.operations.v1.OperationsService/AddAgency", allow: OPERATOR };

    const BACKUP: Row = Row { method: "/concord.operations.v1.OperationsService/CreateBackup", allow: OFFICER };
    const PREVIEW: Row = Row { method: "/concord.operations.v1.OperationsService/PreviewRetention", allow: BOTH };
    const GRANT: Row = Row { method: "/concord.operations.v1.OperationsService/GrantAgency", allow: OFFICER };
    const CONFIRM: Row = Row { method: "/concord.operations.v1.OperationsService/ConfirmAgency", allow: OFFICER };
    const REVOKE: Row = Row { method: "/concord.operations.v1.OperationsService/RevokeAgency", allow: BOTH };
    const LIST: Row = Row { method: "/concord.operations.v1.OperationsService/ListAgencies", allow: BOTH };
    const AUDIT: Row = Row { method: "/concord.operations.v1.OperationsService/ListAudit", allow: BOTH };
    const EXPLAIN: Row = Row { method: "/concord.operations.v1.OperationsService/ExplainExchange", allow: OFFICER };
    const PROBE: Row = Row { method: "/concord.operations.v1.OperationsService/ProbeHub", allow: BOTH };
    const LIST_ASIDE: Row = Row { method: "/concord.operations.v1.OperationsService/ListSetAside", allow: BOTH };
    const RETRY: Row = Row { method: "/concord.operations.v1.OperationsService/RetrySetAside", allow: BOTH };
    const DISCARD: Row = Row { method: "/concord.operations.v1.OperationsService/DiscardSetAside", allow: OFFICER };
    const RETAIN: Row = Row { method: "/concord.operations.v1.OperationsService/RunRetention", allow: OFFICER };

    /// The rows under test, beside those that are always right.
    fn check(rows: &[Row], except: &[&str], expected: &[&str]) {
        let right = [BACKUP, PREVIEW, RETAIN, GRANT, CONFIRM, REVOKE, LIST, AUDIT, EXPLAIN, PROBE];
        let rows = [rows, &right, &[LIST_ASIDE, RETRY, DISCARD]].concat();
        let table = MethodTable::new(ParticipantCode::secretariat(), &rows);
        let served = Served {
            services: &["concord.operations.v1.OperationsService"],
            except,
            roles: &[Role::Node, Role::Officer, Role::Operator],
        };
        let wrong = check_against_descriptors(&table, &served).err().unwrap_or_default();
        assert_eq!(wrong.len(), expected.len(), "{wrong:#?}");
        for (found, words) in wrong.iter().zip(expected) {
            assert!(found.contains(words), "{found}");
        }
    }

    #[test]
    fn a_table_that_differs_from_the_comments_is_found() {
        check(&[STATUS, ADD], &[], &[]);
        check(&[STATUS], &[ADD.method], &[]);
        check(&[STATUS], &[], &["AddAgency is served, but has no row"]);
        check(&[STATUS, ADD], &[ADD.method], &["AddAgency has a row, but is not served"]);
        let wrong = Row { allow: OFFICER, ..ADD };
        check(&[STATUS, wrong], &[], &["AddAgency: the table lets in {Officer}, the comment {Operator}"]);
        let unknown = Row { method: "/concord.operations.v1.OperationsService/Reboot", allow: OPERATOR };
        check(&[STATUS, ADD, unknown], &[], &["Reboot has a row, but is not served"]);
    }

    #[test]
    fn every_method_of_every_file_says_who_may_call_it() {
        let commented = commented_roles().unwrap();
        assert!(commented.len() > 10, "{commented:?}");
        for (method, roles) in commented {
            assert!(roles.as_ref().is_ok_and(|roles| !roles.is_empty()), "{method}: {roles:?}");
        }
    }

    #[test]
    fn a_comment_without_roles_or_with_other_words_is_an_error() {
        assert_eq!(roles_of(" Does.\n\n Callers: node, agency.\n"), Ok(BTreeSet::from([Role::Node, Role::Agency])));
        assert!(roles_of(" Does.").is_err());
        assert!(roles_of(" Callers: king.").is_err());
        assert!(roles_of(" Callers:").is_err());
    }

    #[test]
    fn streams_are_not_unary() {
        let unary = unary_methods().unwrap();
        assert!(unary.contains("/concord.agency.v1.AgencyService/Submit"));
        assert!(!unary.contains("/concord.agency.v1.AgencyService/Receive"));
        assert!(!unary.contains("/concord.exchange.v1.ExchangeService/Consign"));
    }
}
