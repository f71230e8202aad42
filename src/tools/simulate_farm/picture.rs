//! The images that the simulated farm renders: a day over the hills, one frame after the other.

use std::f64::consts::PI;
use std::fmt::Write;

/// The size in which a picture is drawn; images scale it.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 180.0;

/// One frame of a job. The same frame is always the same picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture {
    pub(super) job: u64,
    pub(super) frame: u32,
    /// All frames of the job.
    pub(super) frames: u32,
}

impl Picture {
    /// Draws the frame as SVG, this wide. Browsers show it whatever the suffix of its name is.
    pub(super) fn draw(&self, width: u32) -> String {
        let time = (f64::from(self.frame) - 0.5) / f64::from(self.frames.max(1));
        let light = 0.25 + 0.75 * (PI * time).sin();
        let hue = self.job * 67 % 360;
        let (sun_x, sun_y) = (24.0 + (WIDTH - 48.0) * time, 140.0 - 105.0 * light);
        let height = width * 9 / 16;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\
             <defs><linearGradient id=\"sky\" x2=\"0\" y2=\"1\">\
             <stop stop-color=\"hsl({}, 60%, {:.0}%)\"/><stop offset=\"1\" stop-color=\"hsl({}, 85%, {:.0}%)\"/></linearGradient></defs>\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"url(#sky)\"/>",
            (hue + 215) % 360,
            8.0 + 52.0 * light,
            (hue + 25) % 360,
            30.0 + 48.0 * light,
        );
        let mut chance = fastrand::Rng::with_seed(self.job);
        for _ in 0..24 {
            let (x, y, dark) = (chance.f64() * WIDTH, chance.f64() * 90.0, (0.9 - light * 1.4).max(0.0));
            if dark > 0.0 {
                let _ =
                    write!(svg, "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\".8\" fill=\"#fff\" opacity=\"{dark:.2}\"/>");
            }
        }
        let _ = write!(
            svg,
            "<circle cx=\"{sun_x:.1}\" cy=\"{sun_y:.1}\" r=\"15\" fill=\"hsl(48, 100%, {:.0}%)\"/>",
            70.0 + 20.0 * light
        );
        for layer in 0..3_u8 {
            self.hills(&mut svg, layer, hue, light, &mut chance);
        }
        let _ = write!(
            svg,
            "<text x=\"10\" y=\"170\" font-family=\"monospace\" font-size=\"11\" fill=\"#fff\" opacity=\".85\">{:04} / {:04}</text></svg>",
            self.frame, self.frames
        );
        svg
    }

    /// Draws one row of hills. Nearer rows are darker, and move faster as the camera passes.
    fn hills(&self, svg: &mut String, layer: u8, hue: u64, light: f64, chance: &mut fastrand::Rng) {
        let near = f64::from(layer);
        let (phase, rough) = (chance.f64() * 2.0 * PI, 1.0 + chance.f64());
        let shift = f64::from(self.frame) * 0.015 * (near + 1.0);
        let base = 108.0 + 24.0 * near;
        let mut path = format!("M0 {HEIGHT}");
        for step in 0..=32 {
            let x = WIDTH * f64::from(step) / 32.0;
            let at = x / WIDTH * (7.0 - near) + shift + phase;
            let y = base - 15.0 * at.sin() - 7.0 * (at * (1.0 + rough)).sin();
            let _ = write!(path, "L{x:.0} {y:.1}");
        }
        let _ = write!(
            svg,
            "<path d=\"{path}L{WIDTH} {HEIGHT}Z\" fill=\"hsl({}, 45%, {:.0}%)\"/>",
            (hue + 140) % 360,
            (14.0 + 26.0 * light) * (1.0 - 0.28 * near),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_is_a_picture_of_its_own_and_always_the_same() {
        let draw = |job, frame| Picture { job, frame, frames: 24 }.draw(200);
        assert_eq!(draw(1, 5), draw(1, 5));
        assert_ne!(draw(1, 5), draw(1, 6));
        assert_ne!(draw(1, 5), draw(2, 5));
        for frame in 1..=24 {
            let svg = draw(3, frame);
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>") && svg.len() < 6000, "{}", svg.len());
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        // A job without frames has no image, and a picture of it does no harm.
        assert!(!Picture { job: 0, frame: 0, frames: 0 }.draw(1).contains("NaN"));
    }
}
