//! Where a simulation stands in for the machine: on its thread, randomness comes from its seed, blocking work is done at once, and
//! detached work is handed to it. Releases do not have it unless the feature `simulation` is asked for.

use std::cell::RefCell;
use std::marker::PhantomData;

use futures::future::BoxFuture;

/// What a simulation does in the machine's place.
pub trait Machine {
    /// Fills bytes from the seed.
    fn fill(&mut self, bytes: &mut [u8]);

    /// Takes work that goes on by itself; it is polled later, never within this call.
    fn detach(&mut self, work: BoxFuture<'static, ()>);
}

thread_local! {
    static MACHINE: RefCell<Option<Box<dyn Machine>>> = const { RefCell::new(None) };
}

/// While it lives, this thread is simulated. It ends on the thread on which it began.
pub struct Simulated(PhantomData<*const ()>);

/// Puts a machine in the place of this thread's; one at a time.
///
/// # Panics
///
/// Where one stands there already.
pub fn simulate(machine: Box<dyn Machine>) -> Simulated {
    let before = MACHINE.with(|slot| slot.borrow_mut().replace(machine));
    assert!(before.is_none(), "this thread is simulated already");
    Simulated(PhantomData)
}

impl Drop for Simulated {
    fn drop(&mut self) {
        // Taken out first: what it holds may draw or detach while it is dropped.
        let _machine = MACHINE.with(|slot| slot.borrow_mut().take());
    }
}

pub(crate) fn is_on() -> bool {
    MACHINE.with(|slot| slot.borrow().is_some())
}

/// Whether a simulation stands here, and filled these bytes.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    MACHINE.with(|slot| slot.borrow_mut().as_mut().map(|machine| machine.fill(bytes)).is_some())
}

pub(crate) fn detach(work: BoxFuture<'static, ()>) {
    MACHINE.with(|slot| {
        if let Some(machine) = slot.borrow_mut().as_mut() {
            machine.detach(work);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Machine for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0 += 1;
            bytes.fill(self.0);
        }

        fn detach(&mut self, _: BoxFuture<'static, ()>) {}
    }

    #[tokio::test]
    async fn a_thread_is_simulated_only_while_its_simulation_lives() {
        let thread = || std::thread::current().id();
        let here = thread();
        assert!(crate::blocking(thread).await.is_ok_and(|other| other != here));
        let simulated = simulate(Box::new(Counting(6)));
        assert_eq!(crate::fresh::<4>(), Ok([7; 4]));
        assert_eq!(crate::fresh::<4>(), Ok([8; 4]));
        assert!(crate::blocking(thread).await.is_ok_and(|same| same == here));
        // Another thread is not touched by it.
        assert_ne!(std::thread::spawn(crate::fresh::<32>).join().unwrap(), Ok([9; 32]));
        drop(simulated);
        assert_ne!(crate::fresh::<32>(), crate::fresh::<32>());
    }
}
