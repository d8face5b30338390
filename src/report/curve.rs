//! How models get better with the labels they are trained on, from two encoders: a page with a chart for each score.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::chart::{Chart, Point, Series, escape};
use super::html::{STYLE, options_table};
use super::seeds::{ScoreName, SeedScore};

/// What models trained on one share of the rows are worth.
#[derive(Clone, Debug, Default)]
pub struct CurvePoint {
    /// The share.
    pub percent: f64,
    /// Rows of each task.
    pub rows: Vec<(String, usize)>,
    /// The scores of those that began with the original encoder, as [`super::summarise_seeds`] gives them.
    pub original: Vec<SeedScore>,
    /// Of those that began with the refined one.
    pub refined: Vec<SeedScore>,
}

/// Two curves for each score.
///
/// ```json
/// {"seeds": [1, 2],
///  "points": [{"percent": 0.1, "rows": {"snli": 549},
///              "splits": {"dev": {"snli": {"ACC": {"original": {"values": [0.5, 0.52], "mean": 0.51, "deviation": 0.0141},
///                                                  "refined": {"values": [0.8, 0.82], "mean": 0.81, "deviation": 0.0141}}}}},
///              "mean": {"original": …, "refined": …}}]}
/// ```
#[derive(Clone, Debug, Default)]
pub struct DomainCurve {
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The shares, the smallest first.
    pub points: Vec<CurvePoint>,
}

/// Names and colours of the two encoders.
const SIDES: [(&str, usize); 2] = [("without refinement", 1), ("with multi-task refinement", 0)];

impl CurvePoint {
    fn of(&self, name: &ScoreName) -> [Option<&SeedScore>; 2] {
        [&self.original, &self.refined].map(|scores| scores.iter().find(|score| score.name == *name))
    }
}

impl DomainCurve {
    /// All scores, the mean over tasks last; that one only if there are several.
    pub fn names(&self) -> Vec<ScoreName> {
        let scores = self.points.iter().take(1).flat_map(|point| &point.original);
        let (overall, mut names): (Vec<_>, Vec<_>) =
            scores.map(|score| score.name.clone()).partition(|name| name.task.is_empty());
        if names.iter().any(|name| names.first().is_some_and(|first| first.task != name.task)) {
            names.extend(overall);
        }
        names
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let point = |point: &CurvePoint| {
            let mut splits = json!({});
            let both = |name: &ScoreName| {
                let [original, refined] = point.of(name).map(|score| score.map_or(Value::Null, SeedScore::json));
                json!({"original": original, "refined": refined})
            };
            let mut mean = Value::Null;
            for name in point.original.iter().map(|score| &score.name) {
                match name.task.is_empty() {
                    true => mean = both(name),
                    false => splits[&name.split][&name.task][&name.metric] = both(name),
                }
            }
            let rows: Map<String, Value> =
                point.rows.iter().map(|(task, rows)| (task.clone(), Value::from(*rows))).collect();
            json!({"percent": point.percent, "rows": rows, "splits": splits, "mean": mean})
        };
        json!({"seeds": self.seeds, "points": self.points.iter().map(point).collect::<Vec<_>>()})
    }

    /// The page; `options`, (name, value), are shown as a table.
    pub fn html(&self, options: &[(String, String)]) -> String {
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Domain curve</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Domain curve</h1>\n<h2>Dev metrics</h2>\n"
        );
        self.table(&mut html);
        let charts: Vec<String> = self.names().iter().filter_map(|name| self.chart(name).html()).collect();
        if !charts.is_empty() {
            let _ = write!(html, "<h2>Curves</h2>\n<div class=\"charts\">\n{}</div>\n", charts.concat());
            html.push_str("<p class=\"soft\">Lines: means over the seeds. Faint: single seeds.</p>\n");
        }
        options_table(&mut html, options);
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let _ = write!(
            html,
            "<footer>Metrics are ×100 here and fractions in the files. Seeds: {}. Manyhead {}.</footer>\n</body>\n</html>\n",
            seeds.join(", "),
            env!("CARGO_PKG_VERSION")
        );
        html
    }

    fn chart(&self, name: &ScoreName) -> Chart {
        let series = SIDES.iter().enumerate().map(|(side, (title, style))| {
            let scores = self.points.iter().filter_map(|point| Some((point.percent, point.of(name)[side]?)));
            let line: Vec<Point> =
                scores.clone().filter_map(|(percent, score)| Some((percent, 100.0 * score.mean?))).collect();
            let raw = scores.flat_map(|(percent, score)| {
                let values = score.values.iter().flatten().filter(|_| score.values.len() > 1);
                values.map(move |value| (percent, 100.0 * value)).collect::<Vec<Point>>()
            });
            Series { name: title.to_string(), style: *style, raw: raw.collect(), line, dots: true }
        });
        Chart {
            title: name.to_string(),
            x_label: "percent of the training rows (log scale)".into(),
            y_label: format!("{} ×100", name.metric),
            series: series.collect(),
            from_zero: false,
            log_x: true,
        }
    }

    fn table(&self, html: &mut String) {
        html.push_str("<div class=\"wide\"><table>\n<thead>\n<tr><th>Share</th><th>Rows</th>");
        let names = self.names();
        for name in &names {
            let name = escape(&name.to_string());
            let _ = write!(html, "<th>{name}, without</th><th>{name}, with</th>");
        }
        html.push_str("</tr>\n</thead>\n<tbody>\n");
        for point in &self.points {
            let rows: usize = point.rows.iter().map(|(_, rows)| rows).sum();
            let _ = write!(html, "<tr><th>{} %</th><td>{rows}</td>", point.percent);
            for score in names.iter().flat_map(|name| point.of(name)) {
                let mean =
                    score.and_then(|score| score.mean).map_or("–".into(), |mean| format!("{:.2}", 100.0 * mean));
                let deviation = score.and_then(|score| score.deviation);
                let deviation = deviation.map_or(String::new(), |deviation| format!(" ± {:.2}", 100.0 * deviation));
                let _ = write!(html, "<td>{mean}{deviation}</td>");
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n</table></div>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(task: &str, values: &[Option<f64>]) -> SeedScore {
        let (split, metric) = if task.is_empty() { ("", "mean") } else { ("dev", "ACC") };
        let name = ScoreName { task: task.into(), split: split.into(), metric: metric.into() };
        SeedScore::new(name, values.to_vec())
    }

    fn curve() -> DomainCurve {
        let point = |(percent, original, refined): (f64, f64, Option<f64>)| CurvePoint {
            percent,
            rows: vec![("a<b".into(), (percent * 10.0) as usize)],
            original: ["", "a<b"].map(|task| score(task, &[Some(original), Some(original + 0.02)])).to_vec(),
            refined: ["", "a<b"].map(|task| score(task, &[refined, Some(0.9)])).to_vec(),
        };
        let points = [(0.1, 0.5, Some(0.8)), (1.0, 0.7, None), (10.0, 0.8, Some(0.86)), (100.0, 0.9, Some(0.9))];
        DomainCurve { seeds: vec![1, 2], points: points.map(point).to_vec() }
    }

    #[test]
    fn the_shares_stand_at_equal_distances_and_undefined_scores_are_left_out() {
        let page = curve().html(&[("out".into(), "x&y".into())]);
        let ticks: Vec<(f64, &str)> = page
            .lines()
            .filter_map(|line| line.strip_prefix("<text x=\"")?.strip_suffix("</text>")?.split_once('"'))
            .filter(|(_, rest)| rest.contains("\"middle\""))
            .map(|(x, rest)| (x.parse().unwrap(), rest.rsplit('>').next().unwrap()))
            .collect();
        assert_eq!(ticks.iter().map(|tick| tick.1).collect::<Vec<_>>(), ["0.1", "1", "10", "100"]);
        for pair in ticks.windows(3) {
            assert!((pair[0].0 + pair[2].0 - 2.0 * pair[1].0).abs() < 0.11, "{ticks:?}");
        }
        // Four points without refinement and three with it: each tells its value.
        assert_eq!(
            (page.matches("without refinement: ").count(), page.matches("multi-task refinement: ").count()),
            (4, 3)
        );
        assert!(page.contains("without refinement: 51 at 0.1<") && page.contains("a&lt;b dev ACC"), "{page}");
        assert!(page.contains("<td>51.00 ± 1.41</td><td>85.00 ± 7.07</td>") && page.contains("<td>–</td>"), "{page}");
        assert!(page.contains("x&amp;y") && !page.contains("a<b"));
        // A share alone, or nothing that is defined, is no reason to fail.
        let one = DomainCurve { points: curve().points[..1].to_vec(), ..curve() };
        assert!(one.html(&[]).contains("<circle"));
        let none = DomainCurve { points: vec![CurvePoint { percent: 1.0, ..CurvePoint::default() }], seeds: vec![1] };
        assert!(!none.html(&[]).contains("<svg") && none.names().is_empty());
    }

    #[test]
    fn json_has_the_values_of_every_seed() {
        let value = curve().json();
        assert_eq!(value["seeds"], json!([1, 2]));
        let point = &value["points"][1];
        assert_eq!((&point["percent"], &point["rows"]), (&json!(1.0), &json!({"a<b": 10})));
        let refined = &point["splits"]["dev"]["a<b"]["ACC"]["refined"];
        assert_eq!(*refined, json!({"values": [null, 0.9], "mean": null, "deviation": null}));
        assert_eq!(point["mean"]["original"]["values"], json!([0.7, 0.72]));
    }
}
