//! A small drawing of the latencies: over time, and how they are distributed.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;

/// Latencies of the events published from some moment on.
pub(super) struct Slice<'a> {
    /// Seconds since the first event.
    pub(super) start: f64,
    /// Nanoseconds.
    pub(super) latency: &'a Histogram<u64>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 50.0;
const GAP: f64 = 90.0;

/// The quantiles of the distribution's axis and where they are drawn: each nine takes the same room.
const QUANTILES: [(f64, &str); 6] =
    [(0.0, "0 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %"), (0.99999, "99.999 %")];

/// Gives an SVG image. `title`: what was measured, as plain text.
pub(super) fn draw(title: &str, slices: &[Slice<'_>], all: &Histogram<u64>) -> Result<String, fmt::Error> {
    let scale = Scale::of(all);
    let second_top = TOP + HEIGHT + GAP;
    let (width, height) = (LEFT + WIDTH + 70.0, second_top + HEIGHT + 60.0);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" fill="#333">
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="24" font-size="16">{}</text>
"##,
        escaped(title)
    );
    draw_over_time(&mut svg, slices, &scale)?;
    draw_distribution(&mut svg, all, &scale, second_top)?;
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A logarithmic axis of latencies, over whole powers of ten.
struct Scale {
    lowest: i32,
    highest: i32,
}

impl Scale {
    fn of(all: &Histogram<u64>) -> Self {
        let lowest = (all.min().max(1_000) as f64).log10().floor() as i32;
        let highest = (all.max().max(1) as f64).log10().ceil() as i32;
        Self { lowest, highest: highest.max(lowest + 1) }
    }

    /// How far from the top of a chart a latency is drawn.
    fn depth(&self, nanos: u64) -> f64 {
        let exponent = (nanos.max(1) as f64).log10().clamp(self.lowest.into(), self.highest.into());
        HEIGHT * (f64::from(self.highest) - exponent) / f64::from(self.highest - self.lowest)
    }

    fn draw_grid(&self, svg: &mut String, top: f64) -> fmt::Result {
        for exponent in self.lowest..=self.highest {
            let nanos = 10_u64.pow(exponent.unsigned_abs());
            let y = top + self.depth(nanos);
            let label = match nanos {
                ..1_000_000 => format!("{} µs", nanos / 1_000),
                1_000_000..1_000_000_000 => format!("{} ms", nanos / 1_000_000),
                _ => format!("{} s", nanos / 1_000_000_000),
            };
            writeln!(svg, r##"<path d="M{LEFT} {y:.1}h{WIDTH}" stroke="#ddd"/>"##)?;
            writeln!(svg, r#"<text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#, LEFT - 8.0, y + 4.0)?;
        }
        Ok(())
    }
}

fn draw_over_time(svg: &mut String, slices: &[Slice<'_>], scale: &Scale) -> fmt::Result {
    const LINES: [(f64, &str, &str); 3] = [(1.0, "max", "#d66"), (0.99, "p99", "#e90"), (0.5, "p50", "#27b")];
    writeln!(svg, r#"<text x="{LEFT}" y="{}">latency by time of publishing</text>"#, TOP - 8.0)?;
    scale.draw_grid(svg, TOP)?;
    let end = slices.last().map_or(0.0, |slice| slice.start).max(1e-6);
    let x = |start: f64| LEFT + WIDTH * start / end;
    let (bottom, middle) = (TOP + HEIGHT + 18.0, LEFT + WIDTH / 2.0);
    for (x, seconds) in [(LEFT, 0.0), (middle, end / 2.0), (LEFT + WIDTH, end)] {
        writeln!(svg, r#"<text x="{x}" y="{bottom}" text-anchor="middle">{seconds:.3} s</text>"#)?;
    }
    for (row, (quantile, name, colour)) in (1..).zip(LINES) {
        let points = slices.iter().filter(|slice| !slice.latency.is_empty());
        let points = points.map(|slice| (x(slice.start), TOP + scale.depth(value(slice.latency, quantile))));
        draw_line(svg, points, colour)?;
        let (right, y) = (LEFT + WIDTH + 12.0, TOP + 18.0 * f64::from(row));
        writeln!(svg, r#"<text x="{right}" y="{y}" fill="{colour}">{name}</text>"#)?;
    }
    Ok(())
}

fn draw_distribution(svg: &mut String, all: &Histogram<u64>, scale: &Scale, top: f64) -> fmt::Result {
    writeln!(svg, r#"<text x="{LEFT}" y="{}">share of deliveries that took at most so long</text>"#, top - 8.0)?;
    scale.draw_grid(svg, top)?;
    let steps = (QUANTILES.len() - 1) as f64;
    let x = |nines: f64| LEFT + WIDTH * nines / steps;
    for (nines, (_, label)) in (0..).zip(QUANTILES) {
        let x = x(f64::from(nines));
        writeln!(svg, r##"<path d="M{x:.1} {top}v{HEIGHT}" stroke="#ddd"/>"##)?;
        writeln!(svg, r#"<text x="{x:.1}" y="{}" text-anchor="middle">{label}</text>"#, top + HEIGHT + 18.0)?;
    }
    let points = (0..=100).map(|step| {
        let nines = steps * f64::from(step) / 100.0;
        (x(nines), top + scale.depth(value(all, 1.0 - 10_f64.powf(-nines))))
    });
    draw_line(svg, points, "#27b")
}

fn draw_line(svg: &mut String, points: impl Iterator<Item = (f64, f64)>, colour: &str) -> fmt::Result {
    write!(svg, r#"<polyline fill="none" stroke="{colour}" stroke-width="1.5" points=""#)?;
    for (x, y) in points {
        write!(svg, "{x:.1},{y:.1} ")?;
    }
    writeln!(svg, r#""/>"#)
}

/// A histogram gives the upper end of a step, which may be more than there was.
fn value(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    histogram.value_at_quantile(quantile).min(histogram.max())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tally::nanoseconds;
    use super::*;

    #[test]
    fn any_measurement_can_be_drawn() {
        let empty = nanoseconds();
        let mut some = nanoseconds();
        for nanos in [1, 50_000, 3_000_000, 70_000_000_000] {
            some.saturating_record(nanos);
        }
        for histogram in [&empty, &some] {
            let slices = [Slice { start: 0.0, latency: histogram }, Slice { start: 1.5, latency: histogram }];
            for slices in [&slices[..0], &slices[..1], &slices[..]] {
                let svg = draw("5 < 6 & more", slices, histogram).unwrap();
                assert!(svg.contains("5 &lt; 6 &amp; more") && svg.ends_with("</svg>\n"));
                assert!(!svg.contains("NaN") && !svg.contains("inf"));
            }
        }
    }
}
