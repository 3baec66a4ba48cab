//! The floods: what may be said to an HTTP/2 server without end that costs the one who says it less than the one who hears it.

use crate::http2::{call_to, field, flag, frame, kind, remembered_field, setting};

/// Frames or groups of frames that go into one chunk.
const TOGETHER: u64 = 64;
const SETTING_INITIAL_WINDOW: u16 = 4;
/// Both servers answer it to every caller.
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// More than the largest table, and as often as a frame has room for.
const BOMB_FIELD_BYTES: usize = 3900;
const BOMB_TIMES: usize = 50_000;

/// How an attack on one connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The server ends the connection.
    Dropped,
    /// It may stand, and cost no more than it does.
    Stands,
}

/// One kind of flood.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// What it is called.
    pub name: &'static str,
    /// What the first SETTINGS say.
    pub settings: fn() -> Vec<u8>,
    /// The chunk of this number.
    pub chunk: fn(u64) -> Vec<u8>,
    /// Whether the attacker reads what it is answered.
    pub reads: bool,
    /// What becomes of it.
    pub ends: Ends,
}

/// All of them.
pub const FLOODS: &[Flood] = &[
    dropped("rapid reset", |n| calls(n, |id| [open(id), cancel(id)].concat())),
    dropped("rapid reset behind data", |n| {
        calls(n, |id| [open(id), frame(kind::DATA, flag::NONE, id, &[0, 0, 0, 0, 9, 1]), cancel(id)].concat())
    }),
    dropped("made resets: a window of more than there can be", |n| {
        calls(n, |id| [open(id), frame(kind::WINDOW_UPDATE, flag::NONE, id, &0x7fff_ffff_u32.to_be_bytes())].concat())
    }),
    dropped("made resets: a window of nothing more", |n| {
        calls(n, |id| [open(id), frame(kind::WINDOW_UPDATE, flag::NONE, id, &[0; 4])].concat())
    }),
    dropped("made resets: data behind the end", |n| {
        calls(n, |id| {
            let whole = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, &call_to(CHECK));
            [whole, frame(kind::DATA, flag::NONE, id, b"late")].concat()
        })
    }),
    dropped("made resets: another length than was said", |n| {
        calls(n, |id| {
            let fields = [call_to(CHECK), field("content-length", "5")].concat();
            let open = frame(kind::HEADERS, flag::END_HEADERS, id, &fields);
            [open, frame(kind::DATA, flag::END_STREAM, id, b"123456")].concat()
        })
    }),
    dropped("made resets: names in capitals", |n| {
        calls(n, |id| frame(kind::HEADERS, flag::END_HEADERS, id, &[call_to(CHECK), field("X", "y")].concat()))
    }),
    dropped("calls beyond the number", |n| calls(n, open)),
    dropped("endless header, nothing in it", |n| endless_header(n, &[])),
    dropped("endless header, small fields", |n| endless_header(n, &field("x", "y"))),
    dropped("endless header, large fields", |n| endless_header(n, &field("x", &"y".repeat(8000)))),
    dropped("settings", |_| {
        let settings = setting(SETTING_INITIAL_WINDOW, 70_000);
        frame(kind::SETTINGS, flag::NONE, 0, &settings).repeat(TOGETHER as usize)
    }),
    dropped("settings, and nothing is read", |_| frame(kind::SETTINGS, flag::NONE, 0, &[]).repeat(TOGETHER as usize))
        .unread(),
    dropped("pings", |_| frame(kind::PING, flag::NONE, 0, &[7; 8]).repeat(TOGETHER as usize)),
    dropped("pings, and nothing is read", |_| frame(kind::PING, flag::NONE, 0, &[7; 8]).repeat(TOGETHER as usize))
        .unread(),
    dropped("answers to pings that never were", |_| frame(kind::PING, 1, 0, &[7; 8]).repeat(TOGETHER as usize)),
    dropped("priorities", |_| frame(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 9]).repeat(TOGETHER as usize)),
    dropped("frames that nobody knows", |_| frame(kind::UNKNOWN, flag::NONE, 0, &[]).repeat(TOGETHER as usize)),
    dropped("windows byte by byte", |_| {
        frame(kind::WINDOW_UPDATE, flag::NONE, 0, &1_u32.to_be_bytes()).repeat(TOGETHER as usize)
    }),
    dropped("empty data", |n| {
        let begin = if n == 0 { open(1) } else { Vec::new() };
        [begin, frame(kind::DATA, flag::NONE, 1, &[]).repeat(TOGETHER as usize)].concat()
    }),
    dropped("data that is padding", |n| {
        let begin = if n == 0 { open(1) } else { Vec::new() };
        let padding = [&[255][..], &[0; 255]].concat();
        [begin, frame(kind::DATA, flag::PADDED, 1, &padding).repeat(TOGETHER as usize)].concat()
    }),
    dropped("header bombs", |n| {
        calls_of(n, 1, |id| {
            let bomb = [call_to(CHECK), remembered_field("x", &"y".repeat(BOMB_FIELD_BYTES)), vec![0xbe; BOMB_TIMES]];
            frame(kind::HEADERS, flag::END_HEADERS, id, &bomb.concat())
        })
    }),
    Flood {
        ends: Ends::Stands,
        ..dropped("headers over their limit", |n| {
            calls_of(n, 1, |id| {
                let large = [call_to(CHECK), field("x", &"y".repeat(20_000))].concat();
                frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, &large)
            })
        })
    },
    Flood {
        ends: Ends::Stands,
        settings: || setting(SETTING_INITIAL_WINDOW, 0),
        // The health of the server, told for ever, and never a window for it.
        ..dropped("no window", |n| {
            if n > 0 {
                return Vec::new();
            }
            let watch = |id| {
                let open = frame(kind::HEADERS, flag::END_HEADERS, id, &call_to("/grpc.health.v1.Health/Watch"));
                [open, frame(kind::DATA, flag::END_STREAM, id, &[0; 5])].concat()
            };
            (0..32).flat_map(|number| watch(2 * number + 1)).collect()
        })
    },
];

const fn dropped(name: &'static str, chunk: fn(u64) -> Vec<u8>) -> Flood {
    Flood { name, settings: Vec::new, chunk, reads: true, ends: Ends::Dropped }
}

impl Flood {
    const fn unread(self) -> Self {
        Self { reads: false, ..self }
    }
}

/// One chunk of calls, each on the next stream.
fn calls(chunk: u64, call: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    calls_of(chunk, TOGETHER, call)
}

fn calls_of(chunk: u64, together: u64, call: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (chunk * together..(chunk + 1) * together).flat_map(|number| call(2 * number as u32 + 1)).collect()
}

fn open(id: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, id, &call_to(CHECK))
}

fn cancel(id: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, flag::NONE, id, &8_u32.to_be_bytes())
}

fn endless_header(chunk: u64, fields: &[u8]) -> Vec<u8> {
    let begin = if chunk == 0 { frame(kind::HEADERS, flag::NONE, 1, &call_to(CHECK)) } else { Vec::new() };
    [begin, frame(kind::CONTINUATION, flag::NONE, 1, fields).repeat(TOGETHER as usize)].concat()
}
