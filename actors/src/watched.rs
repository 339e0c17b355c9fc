//! A value that others watch. As `tokio::sync::watch`, but whoever waits is woken in the order in which it came to wait: tokio wakes
//! waiters in a random order, and a simulated world has to repeat itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    changed: Notify,
    closed: AtomicBool,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever changes the value. It goes, and those who wait are told so.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// Whoever watches the value. Cheap to clone.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

/// The value does not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody changes the value any more")]
pub struct Closed;

impl<T> Sender<T> {
    /// A value that nobody watches yet.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared { value: RwLock::new(value), changed: Notify::new(), closed: AtomicBool::new(false) }))
    }

    /// Watches it.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver(self.0.clone())
    }

    /// Sets the value; what it was before.
    pub fn send_replace(&self, value: T) -> T {
        let before = std::mem::replace(&mut *self.0.value.write().unwrap_or_else(PoisonError::into_inner), value);
        self.0.changed.notify_waiters();
        before
    }

    /// Changes the value; those who wait look at it where `change` says that it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        let modified = change(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if modified {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Receiver<T> {
    /// The value now. Not to be held for long: whoever changes it waits.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    /// Waits until the value is as wanted.
    ///
    /// # Errors
    /// [`Closed`] where it is not and never will be.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<RwLockReadGuard<'_, T>, Closed> {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let closed = self.0.closed.load(Ordering::Acquire);
            {
                // What is handed out is what was looked at: another thread may change the value at any time.
                let value = self.0.read();
                if wanted(&value) {
                    return Ok(value);
                }
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_and_an_end_is_told() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        assert_eq!(*receiver.wait_for(|value| *value == 1).await.unwrap(), 1);
        let mut other = receiver.clone();
        let waits = tokio::spawn(async move { other.wait_for(|value| *value == 2).await.map(|value| *value) });
        tokio::task::yield_now().await;
        sender.send_if_modified(|value| {
            *value = 2;
            true
        });
        assert_eq!(waits.await.unwrap(), Ok(2));
        drop(sender);
        assert_eq!(receiver.wait_for(|value| *value == 3).await.err(), Some(Closed));
        assert_eq!(*receiver.borrow(), 2);
    }

    /// Another thread is about to change the value while it is looked at. A value that is looked at once more goes wrong within some hundred
    /// rounds.
    #[tokio::test]
    async fn what_is_handed_out_is_what_was_wanted() {
        const ROUNDS: usize = 2_000;
        let (sender, looked) = (Sender::new(1), Arc::new(AtomicUsize::new(0)));
        let (mut receiver, looks) = (sender.subscribe(), looked.clone());
        let changing = std::thread::spawn(move || {
            for round in 1..=ROUNDS {
                while looks.load(Ordering::Acquire) < round {
                    std::hint::spin_loop();
                }
                sender.send_replace(2);
                sender.send_replace(1);
            }
        });
        for round in 1..=ROUNDS {
            let wanted = |value: &u8| {
                let wanted = *value == 1;
                if wanted {
                    looked.store(round, Ordering::Release);
                    (0..round % 200).for_each(|_| std::hint::spin_loop());
                }
                wanted
            };
            assert_eq!(*receiver.wait_for(wanted).await.unwrap(), 1, "round {round}");
        }
        changing.join().unwrap();
    }

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let local = tokio::task::LocalSet::new();
        let (sender, woken) = (Sender::new(0), Rc::new(RefCell::new(Vec::new())));
        for number in 0..32 {
            let (mut receiver, woken) = (sender.subscribe(), woken.clone());
            local.spawn_local(async move {
                drop(receiver.wait_for(|value| *value == 1).await.unwrap());
                woken.borrow_mut().push(number);
            });
        }
        local
            .run_until(async {
                tokio::task::yield_now().await;
                sender.send_replace(1);
            })
            .await;
        local.await;
        assert_eq!(*woken.borrow(), (0..32).collect::<Vec<_>>());
    }
}
