"""Reads a page of metrics as Prometheus does and checks what a deployment must have left in it."""
import sys

from prometheus_client.parser import text_string_to_metric_families

families = {family.name: family for family in text_string_to_metric_families(open(sys.argv[1]).read())}


def value(family, name=None, **labels):
    for sample in families[family].samples:
        if sample.name == (name or family) and sample.labels == labels:
            return sample.value
    raise SystemExit(f"no {name or family}{labels} in {families[family]}")


assert value("flowrun_runs", state="done") == 1
assert value("flowrun_runs", state="running") == 1
assert value("flowrun_runs_in_step", step="wait for ramdisk") == 1
assert 0 < value("flowrun_oldest_wait_seconds") < 3600
assert value("flowrun_image_bytes_written", "flowrun_image_bytes_written_total") >= 32 << 20
latency = families["flowrun_call_duration_seconds"]
assert latency.type == "histogram"
count = value(latency.name, latency.name + "_count", primitive="ilo.attach_vmedia")
assert count == 2, count
last = -1
for sample in latency.samples:
    if sample.name.endswith("_bucket") and sample.labels["primitive"] == "ilo.attach_vmedia":
        assert sample.value >= last, latency
        last = sample.value
assert last == count, "the last bucket, +Inf, has them all"
assert value(latency.name, latency.name + "_sum", primitive="ilo.attach_vmedia") > 0
assert value("flowrun_call_failures", "flowrun_call_failures_total", primitive="ilo.attach_vmedia") == 0
