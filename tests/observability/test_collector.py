"""The configuration of the OpenTelemetry Collector: receivers, bounds, and that a real one accepts it."""

import shutil
import subprocess

import pytest
import yaml

from tests.observability.asking import DEPLOY

CONFIG = DEPLOY / "otel-collector" / "config.yaml"


def test_every_part_that_a_pipeline_names_is_there_and_memory_is_guarded_first() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    assert set(config["service"]["pipelines"]) == {"traces", "metrics"}
    for pipeline in config["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(config[part])
        assert pipeline["processors"] == ["memory_limiter", "batch"]


def test_a_real_collector_takes_it() -> None:
    program = shutil.which("otelcol") or shutil.which("otelcol-contrib")
    if program is None:
        pytest.skip("NO COLLECTOR HERE: put otelcol on the PATH")
    done = subprocess.run([program, "validate", f"--config={CONFIG}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
