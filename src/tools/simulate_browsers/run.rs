//! One run: its phases one after the other, each bounded in time.

use std::io;
use std::ops::Range;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mio::{Events, Poll, Token};

use super::clock::{Clock, Time};
use super::dial::Dialer;
use super::options::Plan;
use super::plot::{self, Slice};
use super::process;
use super::protocol::{Manners, Transport};
use super::publisher::Publisher;
use super::report::{
    ConnectReport, DeliveryReport, GeneratorReport, Load, PublishReport, Quantiles, Report, ServerReport, SlowReport,
    Spent, StormReport, rate, rounded,
};
use super::swarm::Swarm;
use super::tally::{Tally, Watch};
use super::tracker::Tracker;
use super::traffic::{Page, Traffic};

/// Longest wait for sockets, and how often it is seen whether a phase is over.
const TICK: Duration = Duration::from_millis(20);
/// How often the progress bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// The publisher is looked after each time so many clients were: events overtake deliveries, as they do from a Manager
/// on a machine of its own.
const CLIENTS_BETWEEN_POSTS: usize = 8;
const SOCKETS_AT_A_TIME: usize = 1024;
const PUBLISHER: Token = Token(usize::MAX);

#[derive(Debug)]
pub(super) struct Run {
    plan: Plan,
    traffic: Traffic,
    clock: Clock,
    poll: Poll,
    swarm: Swarm,
    publisher: Publisher,
    tally: Tally,
    sockets: Events,
    progress: ProgressBar,
    redraw: Time,
}

/// CPU time used by some moment.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Time,
    server: Duration,
    own: Duration,
}

/// What the load came to.
struct Loaded {
    publish: PublishReport,
    delivery: DeliveryReport,
    latency: Quantiles,
    spent: Spent,
}

impl Run {
    /// Connects nothing yet.
    pub(super) fn new(plan: Plan) -> io::Result<Self> {
        let clock = Clock::start();
        let traffic = Traffic::new(plan.page, plan.jobs, plan.payload_bytes as usize);
        let subscriptions: Vec<_> = (0..traffic.audiences()).map(|audience| traffic.subscriptions(audience)).collect();
        let manners = Manners::new(plan.transport, &plan.host, &plan.path, &subscriptions, plan.acknowledged);
        let watches = (0..).zip(plan.roles()).map(|(client, role)| Watch {
            role,
            audience: traffic.audience_of(client),
            tracker: Tracker::joining(),
            counted: false,
        });
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        Ok(Self {
            swarm: Swarm::new(watches, manners, plan.behaviour, Dialer::new(plan.targets.clone()), registry, clock),
            publisher: Publisher::new(plan.outlet.clone(), traffic.clone(), PUBLISHER, clock),
            tally: Tally::new(traffic.clone(), plan.all_events(), plan.events),
            poll,
            sockets: Events::with_capacity(SOCKETS_AT_A_TIME),
            progress: ProgressBar::hidden(),
            redraw: clock.now(),
            plan,
            traffic,
            clock,
        })
    }

    /// Goes through all phases. An error is one of the poll or of reading the server's figures.
    pub(super) fn perform(&mut self) -> io::Result<Report> {
        let before = self.resident()?;
        let (connect, connecting) = self.connect(self.plan.behaviour.in_flight)?;
        let connected = self.resident()?;
        self.swarm.begin_churn();
        self.hold(self.plan.hold, "hold")?;
        let idle = self.resident()?;
        let mut loaded = if self.plan.events > 0 { Some(self.load(0..self.plan.events)?) } else { None };
        self.swarm.end_churn();
        self.hold(self.plan.hold_after, "hold")?;
        let after_load = self.resident()?;
        let slow = (self.plan.slow > 0).then(|| self.slow_report());
        let churn = (self.plan.churning > 0).then(|| ConnectReport::of(&self.swarm.outcome().reconnects));
        let storms = (0..self.plan.storms).map(|_| self.storm()).collect::<io::Result<Vec<_>>>()?;
        if let Some(loaded) = &mut loaded {
            let lost = self.swarm.lost(|audience| self.traffic.count(self.publisher.published(), audience));
            loaded.delivery.count(&self.tally.receipts, lost);
        }
        let spent = loaded.as_ref().map(|loaded| loaded.spent);
        let server = (!self.plan.server_pids.is_empty()).then(|| {
            let resident = [before, connected, idle, after_load];
            ServerReport::of(&self.plan.server_pids, resident, connect.connected, spent)
        });
        Ok(Report {
            load: self.describe(),
            connect,
            disconnects: self.swarm.outcome().disconnects.clone(),
            slow,
            churn,
            storms,
            server,
            generator: GeneratorReport::of(connecting, spent),
            publish: None,
            delivery: None,
            latency: None,
            problems: Vec::new(),
        }
        .with_load(loaded.map(|Loaded { publish, delivery, latency, .. }| (publish, delivery, latency)))
        .judged())
    }

    /// Draws what was measured.
    pub(super) fn plot(&self, title: &str) -> Result<String, std::fmt::Error> {
        let first = self.tally.published_at(0).unwrap_or_default();
        let slices = self.tally.latency_over_time();
        let slices = slices.map(|(at, latency)| Slice { start: at.since(first).as_secs_f64(), latency });
        plot::draw(title, &slices.collect::<Vec<_>>(), &self.tally.latency())
    }

    /// Connects all clients. Gives what came of it and which share of a core it took here.
    fn connect(&mut self, in_flight: usize) -> io::Result<(ConnectReport, f64)> {
        let usage = self.usage()?;
        self.begin_progress("connect", self.plan.clients.into());
        self.swarm.connect_all(in_flight);
        let deadline = self.clock.now().after(self.plan.timeout);
        while !self.swarm.is_settled() && self.clock.now() < deadline {
            self.turn(TICK)?;
            self.show_progress(self.swarm.ready() as u64);
        }
        let spent = self.spent_since(usage, 0)?;
        Ok((ConnectReport::of(&self.swarm.outcome().connects), spent.own_share()))
    }

    /// Keeps everything going for a while without publishing.
    fn hold(&mut self, time: Duration, name: &'static str) -> io::Result<()> {
        self.begin_progress(name, time.as_secs());
        let began = self.clock.now();
        let end = began.after(time);
        loop {
            let now = self.clock.now();
            if now >= end {
                return Ok(());
            }
            self.turn(end.since(now).min(REDRAW))?;
            self.show_progress(now.since(began).as_secs());
        }
    }

    /// Publishes these events and waits for their deliveries.
    fn load(&mut self, events: Range<u32>) -> io::Result<Loaded> {
        let first = events.start;
        let audiences = self.swarm.expect_all(|audience| self.traffic.count(first, audience));
        let before = self.tally.receipts.clone();
        let planned = self.expected(&audiences, &events);
        self.begin_progress("deliver", planned);
        let usage = self.usage()?;
        self.publisher.publish(events);
        self.await_deliveries(before.steady)?;
        let deliveries = self.tally.receipts.deliveries() - before.deliveries();
        let spent = self.spent_since(usage, deliveries)?;
        let began = self.tally.published_at(first).unwrap_or_default();
        let seconds = self.tally.last_receipt.since(began).as_secs_f64();
        let publish_seconds = self.publisher.last_answer.since(began).as_secs_f64();
        let published = self.publisher.published();
        Ok(Loaded {
            publish: PublishReport {
                events: published - first,
                posts: self.publisher.posts,
                turned_away: self.publisher.turned_away,
                seconds: rounded(publish_seconds),
                per_second: rate((published - first).into(), publish_seconds),
                answer: Quantiles::of(&self.publisher.answers),
                error: self.publisher.error().map(ToString::to_string),
            },
            delivery: DeliveryReport {
                expected: self.expected(&audiences, &(first..published)),
                delivered: self.tally.receipts.steady - before.steady,
                delivered_to_all: deliveries,
                seconds: rounded(seconds),
                per_second: rate(deliveries, seconds),
                ..DeliveryReport::default()
            },
            latency: Quantiles::of(&self.tally.latency()),
            spent,
        })
    }

    fn await_deliveries(&mut self, received_before: u64) -> io::Result<()> {
        let mut next_look = self.clock.now();
        let deadline = next_look.after(self.plan.timeout);
        loop {
            self.turn(TICK)?;
            let now = self.clock.now();
            if now >= next_look {
                next_look = now.after(TICK);
                self.show_progress(self.tally.receipts.steady - received_before);
                let published = self.publisher.published();
                let is_over = self.publisher.is_done()
                    && (self.swarm.outstanding(|audience| self.traffic.count(published, audience)) == 0
                        || now.since(self.tally.last_receipt.max(self.publisher.last_answer)) > self.plan.patience);
                if is_over || now >= deadline {
                    return Ok(());
                }
            }
        }
    }

    /// Drops all connections, lets all clients come back at once, and sees with one event that they are all there.
    fn storm(&mut self) -> io::Result<StormReport> {
        let published = self.publisher.published();
        self.swarm.drop_all(|audience| self.traffic.count(published, audience));
        let (connect, _) = self.connect(usize::MAX)?;
        self.hold(self.plan.hold, "hold")?;
        let rss_bytes = if self.plan.server_pids.is_empty() { None } else { Some(self.resident()?) };
        let (mut expected, mut delivered) = (0, 0);
        if self.plan.events > 0 && self.publisher.error().is_none() {
            let loaded = self.load(published..published + 1)?;
            (expected, delivered) = (loaded.delivery.expected, loaded.delivery.delivered);
        }
        Ok(StormReport { connect, expected, delivered, rss_bytes })
    }

    /// Waits for sockets, at most so long, and does what there is to do.
    fn turn(&mut self, longest: Duration) -> io::Result<()> {
        let now = self.clock.now();
        let wait = longest.min(self.swarm.idle_for(now)).min(self.publisher.idle_for(now));
        match self.poll.poll(&mut self.sockets, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for (index, event) in self.sockets.iter().enumerate() {
            if index % CLIENTS_BETWEEN_POSTS == 0 {
                self.publisher.advance(self.poll.registry(), &mut self.tally);
            }
            if event.token() != PUBLISHER {
                self.swarm.on_event(event, &mut self.tally);
            }
        }
        self.publisher.advance(self.poll.registry(), &mut self.tally);
        self.swarm.advance(&mut self.tally);
        Ok(())
    }

    fn expected(&self, audiences: &[u32], events: &Range<u32>) -> u64 {
        let count = |end, audience| u64::from(self.traffic.count(end, audience));
        audiences.iter().map(|&audience| count(events.end, audience) - count(events.start, audience)).sum()
    }

    fn slow_report(&self) -> SlowReport {
        SlowReport {
            clients: self.plan.slow,
            delivered: self.tally.receipts.slow,
            skipped: self.swarm.skipped_by_slow(),
            disconnects: self.swarm.outcome().slow_disconnects.clone(),
        }
    }

    fn describe(&self) -> Load {
        let plan = &self.plan;
        Load {
            url: plan.urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            publish_url: plan.publish_url.to_string(),
            transport: match plan.transport {
                Transport::Websocket => "websocket",
                Transport::Polling => "polling",
            },
            clients: plan.clients,
            page: match plan.page {
                Page::Jobs => "jobs",
                Page::Job => "job",
                Page::Mix => "mix",
            },
            jobs: self.traffic.audiences(),
            events: plan.events,
            rate: plan.outlet.rate,
            batch: plan.outlet.batch,
            payload_bytes: plan.payload_bytes,
            hold_s: plan.hold.as_secs_f64(),
        }
    }

    /// Memory of all of the server's processes in bytes.
    fn resident(&self) -> io::Result<u64> {
        self.plan.server_pids.iter().copied().map(process::resident_bytes).sum()
    }

    fn usage(&self) -> io::Result<Usage> {
        let server = self.plan.server_pids.iter().copied().map(process::cpu_time).sum::<io::Result<Duration>>()?;
        Ok(Usage { at: self.clock.now(), server, own: process::cpu_time(std::process::id())? })
    }

    fn spent_since(&self, before: Usage, deliveries: u64) -> io::Result<Spent> {
        let now = self.usage()?;
        Ok(Spent {
            seconds: now.at.since(before.at).as_secs_f64(),
            server_cpu: now.server.saturating_sub(before.server).as_secs_f64(),
            own_cpu: now.own.saturating_sub(before.own).as_secs_f64(),
            deliveries,
        })
    }

    /// Shows a bar from 0 to `end`, where there is a terminal.
    fn begin_progress(&mut self, name: &'static str, end: u64) {
        const TEMPLATE: &str = "{prefix:>8} {wide_bar} {human_pos}/{human_len}, {per_sec}, {elapsed}";
        self.progress.finish_and_clear();
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is correct");
        self.progress = ProgressBar::new(end).with_style(style).with_prefix(name);
    }

    fn show_progress(&mut self, position: u64) {
        let now = self.clock.now();
        if now >= self.redraw {
            self.redraw = now.after(REDRAW);
            self.progress.set_position(position);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}
