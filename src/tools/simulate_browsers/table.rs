//! The report as a table for people, a line for each of its parts.

use std::fmt::{self, Display, Formatter};

use super::report::{
    ConnectReport, DeliveryReport, GeneratorReport, Moments, PublishReport, Quantiles, Report, ServerReport,
    SlowReport, StormReport,
};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        row(f, "connect", &self.connect)?;
        if let Some(publish) = &self.publish {
            row(f, "publish", publish)?;
        }
        if let Some(delivery) = &self.delivery {
            row(f, "deliver", delivery)?;
        }
        if let Some(latency) = &self.latency {
            row(f, "latency", latency)?;
        }
        if let Some(slow) = &self.slow {
            row(f, "slow", slow)?;
        }
        if let Some(churn) = &self.churn {
            row(f, "churn", churn)?;
        }
        for storm in &self.storms {
            row(f, "storm", storm)?;
        }
        if let Some(server) = &self.server {
            row(f, "server", server)?;
        }
        row(f, "generator", &self.generator)?;
        let reasons = [&self.connect.failures, &self.disconnects].into_iter().flatten();
        for (reason, count) in reasons {
            row(f, "reason", format_args!("{reason}: {count}"))?;
        }
        if self.problems.is_empty() {
            row(f, "verdict", "all connected; nothing lost, doubled or out of order")
        } else {
            self.problems.iter().try_for_each(|problem| row(f, "PROBLEM", problem))
        }
    }
}

impl Display for ConnectReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { attempted, connected, seconds, per_second, over_1s, failed, time, .. } = self;
        write!(f, "{connected} of {attempted} in {seconds:.3} s, {per_second:.0}/s, ")?;
        write!(f, "p50 {} p99 {} max {} ms, {over_1s} over 1 s, {failed} failed", time.p50_ms, time.p99_ms, time.max_ms)
    }
}

impl Display for PublishReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { events, posts, seconds, per_second, answer, turned_away, .. } = self;
        write!(f, "{events} events in {posts} posts in {seconds:.3} s, {per_second:.0}/s, answers after ")?;
        write!(f, "p50 {} p99 {} max {} ms, {turned_away} turned away", answer.p50_ms, answer.p99_ms, answer.max_ms)
    }
}

impl Display for DeliveryReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { expected, delivered, seconds, per_second, lost, doubled, out_of_order, misrouted, foreign, .. } =
            self;
        write!(f, "{delivered} of {expected} in {seconds:.3} s, {per_second:.0}/s, {lost} lost, {doubled} doubled, ")?;
        write!(f, "{out_of_order} out of order, {misrouted} misrouted, {foreign} foreign")
    }
}

impl Display for Quantiles {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = self;
        write!(f, "p50 {p50_ms} p90 {p90_ms} p99 {p99_ms} p99.9 {p999_ms} max {max_ms} ms")
    }
}

impl Display for SlowReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { clients, delivered, skipped, disconnects } = self;
        write!(f, "{clients} clients got {delivered}, skipped {skipped}; closed by the server:")?;
        disconnects.iter().try_for_each(|(reason, count)| write!(f, " {count} ({reason})"))?;
        if disconnects.is_empty() { write!(f, " 0") } else { Ok(()) }
    }
}

impl Display for StormReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { connect, expected, delivered, rss_bytes } = self;
        write!(f, "{connect}; then {delivered} of {expected} delivered")?;
        rss_bytes.map_or(Ok(()), |bytes| write!(f, ", RSS {:.1} MB", bytes as f64 / 1e6))
    }
}

impl Display for ServerReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {:.2} s", self.cpu_seconds)?;
        if let Some(cpu) = self.cpu_us_per_delivery {
            write!(f, ", {cpu:.3} µs per delivery")?;
        }
        let Moments { connected, idle, after_load, .. } = self.rss_bytes_per_client;
        write!(f, "; RSS per client: {connected} B when connected, {idle} B idle, {after_load} B after the load")
    }
}

impl Display for GeneratorReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        let (connecting, load) = (percent(self.cpu_share_connecting), percent(self.cpu_share_load));
        write!(f, "{connecting:.0} % of a core while connecting, {load:.0} % during the load")?;
        if let Some(cpu) = self.cpu_us_per_delivery {
            write!(f, ", {cpu:.3} µs per delivery")?;
        }
        if self.is_bottleneck { write!(f, " (WARNING: it was the bottleneck)") } else { Ok(()) }
    }
}

fn row(f: &mut Formatter<'_>, name: &str, what: impl Display) -> fmt::Result {
    writeln!(f, "{name:<10} {what}")
}
