//! A proxy of the tests' own between two parties of a real connection: it does what networks do. TLS passes through it; it cannot
//! read or change anything, only swallow, stall, slow down and cut.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// How often a connection looks whether it is to be cut, and waits for bytes at most before it looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// What is passed on at once.
const CHUNK_SIZE_BYTES: usize = 16 * 1024;
/// What the proxy itself takes in ahead of what it passes on. More, and a slow line would swallow megabytes before it is felt.
const RECEIVE_BUFFER_SIZE_BYTES: usize = 64 * 1024;
/// What a rate allows at once: a fiftieth of a second of it, and a byte at least.
const RATE_PARTS_PER_SECOND: u64 = 50;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected to whom it wanted.
    Up,
    /// Back.
    Down,
}

/// What becomes of the bytes of one way, of all connections together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Free,
    /// They are read and go nowhere, and no end is passed on either: the other side hears nothing more.
    Swallowed,
    /// They are not read: what is sent fills the buffers in between, and then waits.
    Stalled,
    /// So many pass in a second.
    PerSecond(u64),
}

/// A proxy that listens on a port of its own. Dropped, it cuts everything.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<String>,
    up: Line,
    down: Line,
    /// Counts the cuts: a connection of an older generation ends.
    generation: AtomicU64,
    /// Connections that come are closed at once.
    closed: AtomicBool,
    ended: AtomicBool,
    /// Connections that were taken, ever.
    taken: AtomicU64,
}

/// One way.
struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

struct LineState {
    flow: Flow,
    /// Bytes that passed, ever.
    passed: u64,
    /// Everything is cut when so many have passed.
    cut_at: Option<u64>,
    /// From when on the rate has bytes to give.
    free_from: Instant,
}

impl Line {
    fn new() -> Self {
        let state = LineState { flow: Flow::Free, passed: 0, cut_at: None, free_from: Instant::now() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap()
    }
}

impl Proxy {
    /// Listens for connections to this address. It may change later.
    pub fn new(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Whoever is accepted inherits it.
        SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER_SIZE_BYTES).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target.to_owned()),
            up: Line::new(),
            down: Line::new(),
            generation: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            taken: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client
                    && !accepting.closed.load(Ordering::SeqCst)
                {
                    let shared = Arc::clone(&accepting);
                    thread::spawn(move || shared.serve(client));
                }
            }
        });
        Self { address, shared }
    }

    /// `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where connections that come from now on go.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.shared.target.lock().unwrap());
    }

    /// What becomes of the bytes of one way from now on.
    pub fn flow(&self, way: Way, flow: Flow) {
        let line = self.shared.line(way);
        line.state().flow = flow;
        line.changed.notify_all();
    }

    /// The same for both ways.
    pub fn flow_both(&self, flow: Flow) {
        self.flow(Way::Up, flow);
        self.flow(Way::Down, flow);
    }

    /// Cuts all connections that stand.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts all connections as soon as so many more bytes have passed this way, once.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        let mut state = self.shared.line(way).state();
        state.cut_at = Some(state.passed + bytes);
    }

    /// Whether the cut that was ordered is still to come.
    pub fn will_cut(&self, way: Way) -> bool {
        self.shared.line(way).state().cut_at.is_some()
    }

    /// Closes connections that come at once, or no longer does.
    pub fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::SeqCst);
    }

    /// Bytes that passed this way, ever.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.line(way).state().passed
    }

    /// Connections that were taken, ever.
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.cut();
        // Wakes the accepting thread, which sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn line(&self, way: Way) -> &Line {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    fn cut(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.up.changed.notify_all();
        self.down.changed.notify_all();
    }

    fn serve(self: Arc<Self>, client: TcpStream) {
        let generation = self.generation.load(Ordering::SeqCst);
        let target = self.target.lock().unwrap().clone();
        // A target that is not there closes the connection, as it would without the proxy.
        let Ok(server) = TcpStream::connect(target) else { return };
        self.taken.fetch_add(1, Ordering::SeqCst);
        for socket in [&client, &server] {
            // A peer that is gone already is found by reading.
            let _ = socket.set_nodelay(true);
            let _ = SockRef::from(socket).set_recv_buffer_size(RECEIVE_BUFFER_SIZE_BYTES);
            let _ = socket.set_read_timeout(Some(LOOK_INTERVAL));
            let _ = socket.set_write_timeout(Some(LOOK_INTERVAL));
        }
        let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
        let back = Arc::clone(&self);
        let returning = thread::spawn(move || back.pass(Way::Down, generation, from_server, &client));
        self.pass(Way::Up, generation, from_client, &server);
        let _ = returning.join();
    }

    /// Passes bytes on until an end comes or a cut; then both ways are at their end, unless the end is swallowed.
    fn pass(&self, way: Way, generation: u64, mut from: TcpStream, to: &TcpStream) {
        let line = self.line(way);
        let mut chunk = vec![0; CHUNK_SIZE_BYTES];
        while let Some(flow) = self.wait_while_stalled(line, generation) {
            let wanted = match flow {
                Flow::PerSecond(rate) => (rate / RATE_PARTS_PER_SECOND).clamp(1, CHUNK_SIZE_BYTES as u64) as usize,
                _ => CHUNK_SIZE_BYTES,
            };
            let read = match from.read(&mut chunk[..wanted]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if is_too_early(&error) => continue,
                Err(_) => break,
            };
            if let Flow::PerSecond(rate) = flow
                && !self.wait_for_rate(line, generation, rate, read as u64)
            {
                break;
            }
            // It may have changed while the bytes came.
            if line.state().flow == Flow::Swallowed {
                continue;
            }
            if !self.write(generation, to, &chunk[..read]) {
                break;
            }
            let mut state = line.state();
            state.passed += read as u64;
            if state.cut_at.is_some_and(|at| state.passed >= at) {
                state.cut_at = None;
                drop(state);
                self.cut();
            }
        }
        // Where a network swallows, it swallows the end too.
        while line.state().flow == Flow::Swallowed && !self.is_cut(generation) {
            thread::sleep(LOOK_INTERVAL);
        }
        for socket in [&from, to] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn is_cut(&self, generation: u64) -> bool {
        self.generation.load(Ordering::SeqCst) != generation
    }

    /// What becomes of the next bytes; none when the connection is cut.
    fn wait_while_stalled(&self, line: &Line, generation: u64) -> Option<Flow> {
        let mut state = line.state();
        while state.flow == Flow::Stalled && !self.is_cut(generation) {
            state = line.changed.wait_timeout(state, LOOK_INTERVAL).unwrap().0;
        }
        (!self.is_cut(generation)).then_some(state.flow)
    }

    /// Takes its turn among all connections of this way; says whether it was not cut meanwhile.
    fn wait_for_rate(&self, line: &Line, generation: u64, rate: u64, bytes: u64) -> bool {
        let free = {
            let mut state = line.state();
            let free = state.free_from.max(Instant::now());
            state.free_from = free + Duration::from_secs_f64(bytes as f64 / rate as f64);
            free
        };
        while Instant::now() < free && !self.is_cut(generation) && line.state().flow == Flow::PerSecond(rate) {
            thread::sleep(LOOK_INTERVAL.min(free.saturating_duration_since(Instant::now())));
        }
        !self.is_cut(generation)
    }

    fn write(&self, generation: u64, mut to: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(0) => return false,
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_too_early(&error) && !self.is_cut(generation) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

fn is_too_early(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
