//! The generated code, package by package, and the descriptors.

#![allow(missing_docs, unreachable_pub, clippy::all)]

pub mod exchange {
    pub mod v1 {
        tonic::include_proto!("concord.exchange.v1");
    }
}

pub mod feed {
    pub mod v1 {
        tonic::include_proto!("concord.feed.v1");
    }
}

pub mod agreement {
    pub mod v1 {
        tonic::include_proto!("concord.agreement.v1");
    }
}

pub mod agency {
    pub mod v1 {
        tonic::include_proto!("concord.agency.v1");
    }
}

pub mod operations {
    pub mod v1 {
        tonic::include_proto!("concord.operations.v1");
    }
}

pub mod journal {
    pub mod v1 {
        tonic::include_proto!("concord.journal.v1");
    }
}

/// The serialised `FileDescriptorSet` of all packages, comments included: for reflection and for the method table's test.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
