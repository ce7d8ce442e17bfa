//! Runs tasks that depend on each other: independent ones in parallel, at most so many at once.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use super::cancel::Cancel;
use crate::error::{Error, Result};

/// Tasks by number, each with those that must be done before it.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    before: Vec<Vec<usize>>,
}

struct Queue {
    ready: BTreeSet<usize>,
    /// How many tasks each one still waits for.
    waiting: Vec<usize>,
    running: usize,
    failure: Option<Error>,
}

impl Tasks {
    /// Adds a task that runs after those `before` and returns its number.
    pub(super) fn add(&mut self, before: Vec<usize>) -> usize {
        self.before.push(before);
        self.before.len() - 1
    }

    /// Runs every task, on this thread and up to `threads - 1` others.
    ///
    /// The first failure stops the build; tasks that fail because of that are not reported.
    pub(super) fn run(
        &self,
        threads: usize,
        cancel: &Cancel,
        work: &(dyn Fn(usize) -> Result<()> + Sync),
    ) -> Result<()> {
        let waiting: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let ready = (0..waiting.len()).filter(|task| waiting[*task] == 0).collect();
        let queue = Mutex::new(Queue { ready, waiting, running: 0, failure: None });
        let changed = Condvar::new();
        let mut after = vec![Vec::new(); self.before.len()];
        for (task, before) in self.before.iter().enumerate() {
            for &earlier in before {
                after[earlier].push(task);
            }
        }
        let worker = || work_until_done(&queue, &changed, &after, cancel, work);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(self.before.len()) {
                scope.spawn(worker);
            }
            worker();
        });
        let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        match queue.failure {
            Some(failure) => Err(failure),
            None => cancel.check(),
        }
    }
}

fn work_until_done(
    queue: &Mutex<Queue>,
    changed: &Condvar,
    after: &[Vec<usize>],
    cancel: &Cancel,
    work: &(dyn Fn(usize) -> Result<()> + Sync),
) {
    let mut state = queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if state.failure.is_some() || cancel.is_stopped() {
            break;
        }
        // The lowest number first: tasks are numbered in the order of the file.
        let Some(task) = state.ready.pop_first() else {
            if state.running == 0 {
                break;
            }
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.running += 1;
        drop(state);
        let result = work(task);
        state = queue.lock().unwrap_or_else(PoisonError::into_inner);
        state.running -= 1;
        match result {
            Ok(()) => {
                for &next in &after[task] {
                    state.waiting[next] -= 1;
                    if state.waiting[next] == 0 {
                        state.ready.insert(next);
                    }
                }
            }
            Err(error) => {
                if state.failure.is_none() {
                    state.failure = Some(error);
                    cancel.stop();
                }
            }
        }
        changed.notify_all();
    }
    changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn tasks_run_after_those_they_need_and_beside_the_others() {
        let mut tasks = Tasks::default();
        let a = tasks.add(vec![]);
        let b = tasks.add(vec![]);
        let c = tasks.add(vec![a, b]);
        let d = tasks.add(vec![c, a]);
        let order = Mutex::new(Vec::new());
        let (together, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        tasks
            .run(4, &Cancel::new(), &|task| {
                let now = together.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                together.fetch_sub(1, Ordering::SeqCst);
                order.lock().unwrap().push(task);
                Ok(())
            })
            .unwrap();
        let order = order.into_inner().unwrap();
        assert_eq!(order[2..], [c, d]);
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn the_first_failure_ends_the_build_and_is_the_one_reported() {
        let mut tasks = Tasks::default();
        let first = tasks.add(vec![]);
        tasks.add(vec![first]);
        let cancel = Cancel::new();
        let ran = AtomicUsize::new(0);
        let error = tasks
            .run(2, &cancel, &|task| {
                ran.fetch_add(1, Ordering::SeqCst);
                Err(Error::Instruction(format!("task {task}")))
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "task 0");
        assert_eq!(ran.into_inner(), 1);
        assert!(cancel.is_stopped());
    }
}
