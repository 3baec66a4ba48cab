//! How far an exchange has come, as its sender is told.

use std::fmt;

/// The states of an exchange towards one recipient, or of the whole before it has recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptState {
    /// Durable at the sender's node.
    Queued,
    /// Durable at the hub.
    Recorded,
    /// Durable at the recipient's node.
    Delivered,
    /// Acknowledged by a first agency of the recipient.
    Taken,
    /// Not accepted by the hub.
    Refused,
    /// Not delivered, because the right to it had gone.
    Withheld,
    /// Reached the recipient's node, which could not verify it.
    SetAside,
}

impl ReceiptState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Recorded, Self::Delivered, Self::Taken, Self::Refused, Self::Withheld, Self::SetAside];

    /// The word for it in commands and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Recorded => "recorded",
            Self::Delivered => "delivered",
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Withheld => "withheld",
            Self::SetAside => "set-aside",
        }
    }

    /// Whether the recipient's side of the delivery is over: what `--wait delivered` waits for.
    pub const fn ends_delivery(self) -> bool {
        matches!(self, Self::Delivered | Self::Taken | Self::Refused | Self::Withheld | Self::SetAside)
    }
}

impl fmt::Display for ReceiptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! reason_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The one with this code, if there is one.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

reason_enum! {
    /// Why a recipient got a notice in place of a delivery.
    WithheldReason {
        /// The recipient is no longer a member of the agreement, or its membership was broken since.
        Left = "LEFT",
        /// The agreement has ended.
        AgreementEnded = "AGREEMENT_ENDED",
        /// The recipient is not on the agreement, or not to receive by it, since it was amended.
        Removed = "REMOVED",
        /// Its origin withdrew it before it was delivered.
        Withdrawn = "WITHDRAWN",
        /// It expired before it was delivered.
        Expired = "EXPIRED",
        /// Its content is gone at the hub: damaged there, and its origin has it no more, or taken by the retention.
        BodyLost = "BODY_LOST",
    }
}

reason_enum! {
    /// Why a recipient's node set a delivery aside. It is journaled with its evidence, and the lane goes on.
    SetAsideReason {
        /// The header does not parse, or does not re-encode to the same bytes.
        HeaderInvalid = "HEADER_INVALID",
        /// The path or the signature does not hold under the key in the consented version.
        SignatureInvalid = "SIGNATURE_INVALID",
        /// A body or the description does not match its commitment in the header.
        BodyMismatch = "BODY_MISMATCH",
        /// This participant's own directory does not have it on the named version.
        NotAMember = "NOT_A_MEMBER",
        /// It breaks the terms of the version that it names: role, media type, size or handling code.
        TermsBroken = "TERMS_BROKEN",
        /// The key that signed is not the one pinned by the consent.
        KeyNotPinned = "KEY_NOT_PINNED",
        /// The exchange was delivered before, under another number.
        Duplicate = "DUPLICATE",
        /// What had been set aside was discarded by the recipient's officer: it is never given to anybody under this number.
        Discarded = "DISCARDED",
    }
}

/// How it ended with what a recipient's node had set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsideEnd {
    /// It was judged again and holds: delivered after all.
    Holds,
    /// The recipient's officer discarded it.
    Discarded,
}
