//! Failures of the library calls that make and run hubs and nodes.

use concord_hub::HubError;
use concord_node::NodeError;
use concord_server::FolderError;

use super::{Exit, Failure};

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let message = error.to_string();
        match &error {
            HubError::Argument(_) | HubError::Seed(_) => Self::new(Exit::Usage, "ARGUMENT_INVALID", message),
            HubError::Config { .. } => Self::failed("CONFIG_INVALID", message),
            HubError::Folder(error) => of_folder(error),
            HubError::Bind(_) => Self::failed("ADDRESS_UNUSABLE", message).help("choose another address, or free this one"),
            HubError::Open(_) | HubError::Read(_) | HubError::Append(_) | HubError::Stored(_) => {
                Self::failed("JOURNAL_UNUSABLE", message).help("see what `concord verify` says of the folder")
            }
            _ => Self::failed("HUB_FAILED", message).help("the log has more"),
        }
    }
}

fn of_folder(error: &FolderError) -> Failure {
    let reason = match error {
        FolderError::InUse { .. } => "FOLDER_IN_USE",
        FolderError::NotThere { .. } => "FOLDER_ABSENT",
        FolderError::NotEmpty { .. } => "FOLDER_NOT_EMPTY",
        FolderError::NotConcords { .. } | FolderError::OtherKind { .. } | FolderError::OtherFormat { .. } => {
            "FOLDER_NOT_CONCORDS"
        }
        FolderError::File(_) | FolderError::Io { .. } => "FOLDER_UNUSABLE",
    };
    Failure::failed(reason, error.to_string())
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::failed("NODE_FAILED", error.to_string())
    }
}
