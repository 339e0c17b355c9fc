//! A page of samples in the making.

use std::collections::BTreeMap;

use anabranch_actors::api::{BOUNDS_MICROS, Distribution};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::series::{Kind, Series};

const MICROS: f64 = 1e6;

/// Samples by series.
#[derive(Debug, Default)]
pub struct Page(BTreeMap<&'static str, MetricFamily>);

impl Page {
    /// A number.
    pub fn set(&mut self, series: &'static Series, labels: &[&str], value: impl Number) {
        let mut sample = labelled(series, labels);
        match series.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value.float());
                sample.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value.float());
                sample.set_gauge(gauge);
            }
            Kind::Histogram => debug_assert!(false, "{} takes a distribution", series.name),
        }
        self.push(series, sample);
    }

    /// 1 for the state that is, 0 for the others. The state is the series' last label.
    pub fn set_one_of<'a>(
        &mut self,
        series: &'static Series,
        labels: &[&str],
        states: impl IntoIterator<Item = &'a str>,
        now: &str,
    ) {
        for state in states {
            self.set(series, &[labels, &[state]].concat(), u64::from(state == now));
        }
    }

    /// Durations.
    pub fn distribution(&mut self, series: &'static Series, labels: &[&str], held: &Distribution) {
        let mut sample = labelled(series, labels);
        let mut cumulated = 0;
        let buckets = BOUNDS_MICROS.iter().zip(held.counts).map(|(bound, count)| {
            cumulated += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.float() / MICROS);
            bucket.set_cumulative_count(cumulated);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(held.count());
        histogram.set_sample_sum(held.sum_micros.float() / MICROS);
        sample.set_histogram(histogram);
        self.push(series, sample);
    }

    fn push(&mut self, series: &'static Series, sample: Metric) {
        let family = self.0.entry(series.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(series.name.to_owned());
            family.set_help(series.help.to_owned());
            family.set_field_type(match series.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            family
        });
        family.mut_metric().push(sample);
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// When a sample does not fit its family; our own mistake.
    pub fn text(self) -> Result<String, prometheus::Error> {
        let families: Vec<_> = self.0.into_values().collect();
        TextEncoder::new().encode_to_string(&families)
    }
}

fn labelled(series: &Series, values: &[&str]) -> Metric {
    debug_assert_eq!(series.labels.len(), values.len(), "{}", series.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(series.labels.iter().zip(values).map(pair).collect())
}

/// What a sample may be made of.
pub trait Number {
    fn float(&self) -> f64;
}

impl Number for f64 {
    fn float(&self) -> f64 {
        *self
    }
}

impl Number for u64 {
    // Past 2^53 the last digits go, as in every number that Prometheus keeps.
    #[allow(clippy::cast_precision_loss)]
    fn float(&self) -> f64 {
        *self as f64
    }
}

impl Number for bool {
    fn float(&self) -> f64 {
        if *self { 1.0 } else { 0.0 }
    }
}

impl Number for std::time::Duration {
    fn float(&self) -> f64 {
        self.as_secs_f64()
    }
}
