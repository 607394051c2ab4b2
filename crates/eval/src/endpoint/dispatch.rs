//! Many calls at a time: what is sent when, what is repeated, and when a run ends.
//!
//! Everything is decided on the calling thread; the others make one call after another. They are not waited for: a cancelled run ends at
//! once, while a call under way ends when the server or its time-out ends it.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use deltaic_checkpoint::{Error, Result};

use super::Endpoint;
use super::reading::{self, Echoed, Read, likelihood};
use super::transport::{Again, Failure, Transport};
use super::wire::{self, Call, Expected};
use crate::{Answer, Request};

/// Longest time between two looks at whether the run is cancelled.
const TICK: Duration = Duration::from_millis(50);

/// One request on its way.
#[derive(Debug)]
struct Job {
    index: usize,
    call: Call,
    failures: u32,
    /// What has come already, where a second call is needed to count the prompt's tokens.
    echoed: Option<Echoed>,
}

type Reply = (Job, std::result::Result<Answer, Failure>);

/// The state of one run.
pub(super) struct Dispatch<'a> {
    endpoint: &'a Endpoint,
    requests: &'a [Request],
    /// First request that was not yet sent.
    next: usize,
    /// Jobs that wait for their repetition, by when and by number.
    waiting: BTreeSet<(Instant, usize)>,
    /// Those jobs, by number.
    jobs: HashMap<usize, Job>,
    /// Nothing is sent before: a server asked for it.
    paused_until: Instant,
    under_way: usize,
    failure: Option<Error>,
}

impl<'a> Dispatch<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, requests: &'a [Request]) -> Self {
        Self {
            endpoint,
            requests,
            next: 0,
            waiting: BTreeSet::new(),
            jobs: HashMap::new(),
            paused_until: Instant::now(),
            under_way: 0,
            failure: None,
        }
    }

    /// Asks for everything, hands over what comes.
    pub(super) fn run(mut self, done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        let (to_workers, jobs) = channel();
        let (to_us, replies) = channel();
        self.start_workers(jobs, to_us)?;
        loop {
            if self.endpoint.cancel.load(Ordering::Relaxed) {
                // What has come is not thrown away.
                while let Ok(reply) = replies.try_recv() {
                    self.take(reply, done)?;
                }
                return Err(Error::new("cancelled"));
            }
            self.send(&to_workers)?;
            if self.under_way == 0 && (self.failure.is_some() || (self.waiting.is_empty() && self.next == self.requests.len())) {
                return self.failure.map_or(Ok(()), Err);
            }
            match replies.recv_timeout(self.time_to_next()) {
                Ok(reply) => self.take(reply, done)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(workers_ended()),
            }
        }
    }

    fn start_workers(&self, jobs: Receiver<Job>, replies: Sender<Reply>) -> Result<()> {
        let jobs = Arc::new(Mutex::new(jobs));
        let counts = Arc::new(PromptCounts::default());
        for _ in 0..self.endpoint.concurrency.min(self.requests.len()) {
            let (jobs, counts, replies) = (jobs.clone(), counts.clone(), replies.clone());
            let worker = Worker { transport: self.endpoint.transport.clone(), model: self.endpoint.model.clone(), counts };
            thread::Builder::new().name("endpoint".to_owned()).spawn(move || worker.work(&jobs, &replies)).map_err(|error| {
                Error::new(format!("starting a thread for calls to the endpoint: {error}")).help("allow fewer calls at a time")
            })?;
        }
        Ok(())
    }

    /// Sends what may be sent now: repetitions whose time has come first, then the next requests in order.
    fn send(&mut self, workers: &Sender<Job>) -> Result<()> {
        let now = Instant::now();
        while self.failure.is_none() && self.under_way < self.endpoint.concurrency && self.paused_until <= now {
            let due = self.waiting.first().copied().filter(|&(when, _)| when <= now);
            let job = if let Some((when, index)) = due {
                self.waiting.remove(&(when, index));
                self.jobs.remove(&index)
            } else if let Some(request) = self.requests.get(self.next) {
                self.next += 1;
                let call = wire::call(request, &self.endpoint.model)?;
                Some(Job { index: self.next - 1, call, failures: 0, echoed: None })
            } else {
                None
            };
            let Some(job) = job else { break };
            workers.send(job).map_err(|_| workers_ended())?;
            self.under_way += 1;
        }
        Ok(())
    }

    fn take(&mut self, (mut job, outcome): Reply, done: &mut dyn FnMut(usize, Answer) -> Result<()>) -> Result<()> {
        self.under_way -= 1;
        let failure = match outcome {
            Ok(answer) => return done(job.index, answer),
            Err(failure) => failure,
        };
        job.failures += 1;
        if failure.again == Again::Never || job.failures > self.endpoint.retries {
            let error = failure.error;
            let times = if failure.again == Again::Never { String::new() } else { format!(" ({} times in a row)", job.failures) };
            // The first failure is told; those under way may fail in the same way.
            self.failure.get_or_insert_with(|| error.clone().with_message(format!("{}{times}", error.message())));
            return Ok(());
        }
        let now = Instant::now();
        let wait = match failure.again {
            Again::After(asked) => {
                let asked = asked.min(self.endpoint.longest_wait);
                self.paused_until = self.paused_until.max(now + asked);
                asked
            }
            _ => jittered(backoff(self.endpoint.first_wait, self.endpoint.longest_wait, job.failures)),
        };
        self.waiting.insert((now + wait, job.index));
        self.jobs.insert(job.index, job);
        Ok(())
    }

    /// Until something may be sent, at most a tick.
    fn time_to_next(&self) -> Duration {
        let next = self.waiting.first().map_or(self.paused_until, |&(when, _)| when.max(self.paused_until));
        match next.saturating_duration_since(Instant::now()) {
            Duration::ZERO => TICK,
            wait => wait.min(TICK),
        }
    }
}

fn workers_ended() -> Error {
    Error::new("a thread that calls the endpoint has ended").help("this is a mistake in deltaic: please report it")
}

/// `first`, doubled with each failure after the first.
fn backoff(first: Duration, longest: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << (failures - 1).min(30)).min(longest)
}

/// A wait drawn from the upper half of the given one, so that calls which failed together do not come back together.
fn jittered(wait: Duration) -> Duration {
    // The standard library's own seeds are random enough for that.
    let share = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    wait.mul_f64(0.5 + 0.5 * share)
}

/// What is known of how many tokens a prompt has; the lock of an entry is held while it is asked, so that it is asked once.
#[derive(Debug, Default)]
struct PromptCounts(Mutex<HashMap<String, Arc<Mutex<Option<usize>>>>>);

/// What a thread has for its calls.
struct Worker {
    transport: Arc<Transport>,
    model: String,
    counts: Arc<PromptCounts>,
}

impl Worker {
    fn work(&self, jobs: &Mutex<Receiver<Job>>, replies: &Sender<Reply>) {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(mut job) = job else { return };
            // A panic would leave the run waiting for this answer for ever.
            let outcome =
                catch_unwind(AssertUnwindSafe(|| self.answer(&mut job))).unwrap_or_else(|_| Err(Failure::lasting(workers_ended())));
            if replies.send((job, outcome)).is_err() {
                return;
            }
        }
    }

    fn answer(&self, job: &mut Job) -> std::result::Result<Answer, Failure> {
        if job.echoed.is_none() {
            match self.ask(&job.call)? {
                Read::Answer(answer) => return Ok(answer),
                Read::Count(echoed) => job.echoed = Some(echoed),
                Read::PromptTokens(_) => return Err(Failure::lasting(Error::new("the endpoint answers another question than was asked"))),
            }
        }
        let (Some(echoed), Expected::Likelihood { prompt, .. }) = (&job.echoed, &job.call.expected) else {
            return Err(Failure::lasting(Error::new("the endpoint answers another question than was asked")));
        };
        // As lm-evaluation-harness: white space at the prompt's end is the continuation's.
        let first = self.count(prompt.trim_end())?;
        likelihood(echoed, first).map_err(Failure::lasting)
    }

    fn count(&self, prompt: &str) -> std::result::Result<usize, Failure> {
        let entry = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner).entry(prompt.to_owned()).or_default().clone();
        let mut known = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = *known {
            return Ok(count);
        }
        match self.ask(&wire::count(&self.model, prompt))? {
            Read::PromptTokens(count) => Ok(*known.insert(count)),
            _ => Err(Failure::lasting(Error::new("the endpoint answers another question than was asked"))),
        }
    }

    fn ask(&self, call: &Call) -> std::result::Result<Read, Failure> {
        let completion = self.transport.exchange(call)?;
        reading::read(completion, &call.expected).map_err(Failure::lasting)?.ok_or_else(|| self.transport.empty(call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(60));
        let waits: Vec<u128> = (1..=9).map(|failures| backoff(first, longest, failures).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(backoff(first, longest, u32::MAX), longest);
    }

    #[test]
    fn a_wait_is_drawn_from_its_upper_half() {
        for _ in 0..1000 {
            let wait = jittered(Duration::from_secs(2)).as_secs_f64();
            assert!((1.0..=2.0).contains(&wait), "{wait}");
        }
    }
}
