//! An SVG document of text, bars and lines, with colours for light and for dark.
//!
//! The background is painted, because a page may be light where the system prefers dark: text is then still to be read.

use std::fmt::Write;

/// How wide every picture is.
pub(crate) const WIDTH: f64 = 820.0;

const STYLE: &str = "
text { font: 12px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
.heading { font-size: 16px; font-weight: 600 }
.name { font-weight: 600 }
.quiet { fill: #59636e } .missed { fill: #cf222e }
.small { font-size: 10px }
.start { text-anchor: start } .middle { text-anchor: middle } .end { text-anchor: end }
.background { fill: #ffffff }
.grid { stroke: #d1d9e0 } .spread { stroke: #1f2328 }
.peer { fill: #b6bfc9 } .ours { fill: #4c9be8 }
.line { fill: none; stroke-width: 2 }
.stroke0 { stroke: #0969da } .stroke1 { stroke: #bc4c00 } .stroke2 { stroke: #1a7f37 }
.fill0 { fill: #0969da } .fill1 { fill: #bc4c00 } .fill2 { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; stroke: #0d1117 }
.quiet { fill: #9198a1 } .missed { fill: #ff7b72 }
.background { fill: #0d1117 }
.grid { stroke: #30363d } .spread { stroke: #f0f6fc }
.peer { fill: #57606a } .ours { fill: #1f6feb }
.stroke0 { stroke: #58a6ff } .stroke1 { stroke: #f0883e } .stroke2 { stroke: #3fb950 }
.fill0 { fill: #58a6ff } .fill1 { fill: #f0883e } .fill2 { fill: #3fb950 }
}
";

/// A picture, drawn from the back to the front. The classes are those of the style above.
pub(crate) struct Svg {
    body: String,
}

impl Svg {
    /// With a heading, and what is to be known of it below.
    pub(crate) fn new(heading: &str, below: &str) -> Self {
        let body = format!("<title>{}</title>\n", escaped(heading));
        let mut svg = Self { body };
        svg.rect((0.0, 0.0), (WIDTH, 10_000.0), "background");
        svg.text((16.0, 28.0), "heading", heading);
        svg.text((16.0, 47.0), "quiet", below);
        svg
    }

    /// Words.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), class: &str, words: &str) {
        let words = escaped(words);
        self.put(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{words}</text>"#
        ));
    }

    /// A bar.
    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        self.put(&format!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" class="{class}"/>"#
        ));
    }

    /// A line through points.
    pub(crate) fn line(&mut self, points: &[(f64, f64)], class: &str) {
        let points = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
        let points = points.collect::<Vec<_>>().join(" ");
        self.put(&format!(r#"<polyline points="{points}" class="{class}"/>"#));
    }

    /// A point that tells what it is when it is pointed at.
    pub(crate) fn point(&mut self, (x, y): (f64, f64), radius: f64, class: &str, words: &str) {
        let words = escaped(words);
        self.put(&format!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" class="{class}"><title>{words}</title></circle>"#
        ));
    }

    /// The document.
    pub(crate) fn finish(self, height: f64) -> String {
        let body = self.body;
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}">
<style>{STYLE}</style>
{body}</svg>
"#
        )
    }

    fn put(&mut self, element: &str) {
        let _ = writeln!(self.body, "{element}");
    }
}

fn escaped(words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('"', "&quot;");
    words.replace('<', "&lt;").replace('>', "&gt;")
}
