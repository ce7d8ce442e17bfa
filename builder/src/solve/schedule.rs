//! Runs tasks that depend on each other: independent ones in parallel, at most so many at once.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

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
    /// How many threads wait for a task.
    idle: usize,
    /// How many threads were started and have not asked for a task yet.
    starting: usize,
    /// How many threads may still be started.
    spare: usize,
    failure: Option<Error>,
}

impl Tasks {
    /// Adds a task that runs after those `before` and returns its number.
    pub(super) fn add(&mut self, before: Vec<usize>) -> usize {
        self.before.push(before);
        self.before.len() - 1
    }

    /// Runs every task, on this thread and up to `threads - 1` others, which are started when there
    /// is something for them to do.
    ///
    /// The first failure stops the build; tasks that fail because of that are not reported.
    pub(super) fn run(
        &self,
        threads: usize,
        cancel: &Cancel,
        work: &(dyn Fn(usize) -> Result<()> + Sync),
    ) -> Result<()> {
        let waiting: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut after = vec![Vec::new(); self.before.len()];
        for (task, before) in self.before.iter().enumerate() {
            for &earlier in before {
                after[earlier].push(task);
            }
        }
        let queue = Queue {
            ready: (0..waiting.len()).filter(|task| waiting[*task] == 0).collect(),
            waiting,
            running: 0,
            idle: 0,
            starting: 0,
            spare: threads.saturating_sub(1),
            failure: None,
        };
        let (queue, changed) = (Mutex::new(queue), Condvar::new());
        let crew = Crew { queue, changed, after, cancel, work };
        std::thread::scope(|scope| crew.work(scope));
        let queue = crew.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        match queue.failure {
            Some(failure) => Err(failure),
            None => cancel.check(),
        }
    }
}

/// The threads that run the tasks, and what they share.
struct Crew<'a> {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The tasks that wait for each one.
    after: Vec<Vec<usize>>,
    cancel: &'a Cancel,
    work: &'a (dyn Fn(usize) -> Result<()> + Sync),
}

impl Crew<'_> {
    /// Takes tasks until there are none left to wait for.
    fn work<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>) {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() || self.cancel.is_stopped() {
                break;
            }
            // The lowest number first: tasks are numbered in the order of the file.
            let Some(task) = state.ready.pop_first() else {
                if state.running == 0 {
                    break;
                }
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            state.running += 1;
            self.call_help(&mut state, scope);
            drop(state);
            let result = (self.work)(task);
            state = self.lock();
            state.running -= 1;
            match result {
                Ok(()) => {
                    for &next in &self.after[task] {
                        state.waiting[next] -= 1;
                        if state.waiting[next] == 0 {
                            state.ready.insert(next);
                        }
                    }
                }
                Err(error) => {
                    if state.failure.is_none() {
                        state.failure = Some(error);
                        self.cancel.stop();
                    }
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Sees to it that somebody takes the tasks that are ready.
    fn call_help<'scope, 'env>(&'env self, state: &mut Queue, scope: &'scope Scope<'scope, 'env>) {
        for _ in 0..state.ready.len().min(state.idle) {
            self.changed.notify_one();
        }
        while state.ready.len() > state.idle + state.starting && state.spare > 0 {
            state.spare -= 1;
            state.starting += 1;
            scope.spawn(move || {
                self.lock().starting -= 1;
                self.work(scope);
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
