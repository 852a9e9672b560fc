//! Logs, traces and the metrics recorder of this process.

use std::{collections::HashMap, io, io::IsTerminal as _};

use anyhow::{Context as _, Result, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    config::{Config, LogFormat, TelemetrySection},
    metrics,
};

/// What is seen of this process from outside.
pub(crate) struct Telemetry {
    tracer: Option<SdkTracerProvider>,
    metrics: PrometheusHandle,
}

impl Telemetry {
    /// Installs logs, traces and metrics for the whole process.
    ///
    /// # Errors
    /// When a filter does not parse, or something is installed already.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        let section = &config.telemetry;
        let tracer = tracer(section, &config.node.region)?;
        let spans = match &tracer {
            Some(provider) => {
                let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("antiphon"));
                Some(layer.with_filter(filter("telemetry.trace_filter", &section.trace_filter)?))
            }
            None => None,
        };
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        let lines = match section.log_format {
            LogFormat::Pretty => lines.boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let lines = lines.with_filter(filter("telemetry.log_filter", &section.log_filter)?);
        tracing_subscriber::registry()
            .with(spans)
            .with(lines)
            .try_init()
            .context("logs are set up already")?;
        Ok(Self {
            tracer,
            metrics: metrics::install()?,
        })
    }

    /// The metrics recorder.
    pub(crate) const fn metrics(&self) -> &PrometheusHandle {
        &self.metrics
    }

    /// Sends the spans that wait.
    pub(crate) async fn stop(self) {
        let Some(provider) = self.tracer else { return };
        // The exporter blocks its caller, which must not be a worker of the runtime.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The exporter sends from a thread of its own, and blocks that.
fn http_client() -> Result<reqwest::blocking::Client> {
    let build = || {
        #[allow(clippy::disallowed_methods, reason = "it is told which provider to use")]
        let builder = reqwest::blocking::Client::builder();
        builder.tls_backend_preconfigured(antiphon_client::https(None)).build()
    };
    // Its own runtime cannot be made on a thread of another.
    match std::thread::spawn(build).join() {
        Ok(client) => client.context("an HTTP client for spans"),
        Err(_) => bail!("an HTTP client for spans"),
    }
}

fn tracer(section: &TelemetrySection, region: &str) -> Result<Option<SdkTracerProvider>> {
    if section.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    let url = format!("{}/v1/traces", section.otlp_endpoint.trim_end_matches('/'));
    let mut headers = HashMap::new();
    if !section.otlp_authorization.expose().is_empty() {
        headers.insert(
            "authorization".to_owned(),
            section.otlp_authorization.expose().to_owned(),
        );
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(http_client()?)
        .with_endpoint(url)
        .with_headers(headers)
        .build();
    let exporter = exporter.context("setting `telemetry.otlp_endpoint`")?;
    let resource = Resource::builder()
        .with_service_name("antiphon")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("cloud.region", region.to_owned()))
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            section.trace_ratio,
        ))))
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}

fn filter(key: &str, directives: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(directives).with_context(|| format!("setting `{key}` ({directives:?})"))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::config::{Sources, load};

    fn section(settings: &[(&str, &str)]) -> TelemetrySection {
        let flags = settings
            .iter()
            .map(|(key, text)| (format!("telemetry.{key}"), (*text).to_owned(), String::new()));
        load(&Sources {
            flags: flags.collect(),
            ..Sources::default()
        })
        .unwrap()
        .config
        .telemetry
    }

    #[test]
    fn without_a_collector_there_is_no_tracer() {
        assert!(tracer(&section(&[]), "local").unwrap().is_none());
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = filter("telemetry.log_filter", "antiphon=loud").unwrap_err().to_string();
        assert!(
            error.contains("telemetry.log_filter") && error.contains("loud"),
            "{error}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_reach_the_collector_with_service_region_and_authorization_before_the_process_ends() {
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let received = tokio::spawn(async move {
            let (mut stream, _) = collector.accept().await.unwrap();
            let mut request = Vec::new();
            while !String::from_utf8_lossy(&request).contains("edge.send") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            String::from_utf8_lossy(&request).into_owned()
        });
        let section = section(&[("otlp_endpoint", &endpoint), ("otlp_authorization", "Bearer hush")]);
        let provider = tracer(&section, "north").unwrap().unwrap();
        provider.tracer("test").start("edge.send").end();
        Telemetry {
            tracer: Some(provider),
            metrics: metrics::recorder().unwrap().handle(),
        }
        .stop()
        .await;

        let request = received.await.unwrap();
        for part in [
            "POST /v1/traces",
            "authorization: Bearer hush",
            "service.name",
            "antiphon",
            "cloud.region",
            "north",
        ] {
            assert!(request.contains(part), "{part:?} is missing in {request:?}");
        }
    }
}
