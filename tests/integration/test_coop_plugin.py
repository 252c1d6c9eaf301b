"""The plugin for ROOST's Coop, run by node as Coop runs it, against a real server."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from origin import Origin, gives, origin
from serving import DOUBLES, ROOT, Server, serving

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

COOP = """
const { default: plugin } = await import(process.argv[1]);
const { config, inputs } = JSON.parse(process.argv[2]);
const context = { integrationId: plugin.manifest.id, getCredential: async () => config };
const [{ signalTypeId, signal }] = plugin.createSignals(context);
const results = [];
for (const value of inputs) {
  const input = { value, orgId: 'org', contentId: 'post 7' };
  results.push(await signal.run(input).catch((error) => error.message));
}
const { manifest } = plugin;
console.log(JSON.stringify({ manifest, signalTypeId, disabled: await signal.getDisabledInfo('org'), results,
  outputType: signal.outputType, eligibleInputs: signal.eligibleInputs }));
"""


@pytest.fixture(scope="module")
def media() -> Iterator[Origin]:
    acts = {"/a.mp4": gives(b"SCORE:0.97"), "/broken.mp4": gives(b"BAD:undecodable")}
    with origin(acts) as running:
        yield running


@pytest.fixture(scope="module")
def service(media: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings: dict[str, Any] = {
        "url_fetch": True,
        "url_fetch_http": True,
        "url_fetch_ports": media.port,
        "url_fetch_internal": "127.0.0.1",
    }
    with serving(DOUBLES, tmp_path_factory.mktemp("coop") / "data", **settings) as server:
        server.wait_ready()
        yield server


def in_coop(config: dict[str, str], *inputs: Any) -> dict[str, Any]:
    plugin = (ROOT / "integrations" / "coop" / "index.js").as_uri()
    given = json.dumps({"config": config, "inputs": inputs})
    ran = subprocess.run(
        [str(NODE), "--input-type=module", "-e", COOP, plugin, given],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(ROOT),
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_a_video_of_an_item_gets_its_score(service: Server, media: Origin) -> None:
    got = in_coop(
        {"serviceUrl": service.url},
        {"type": "VIDEO", "value": {"url": media.url("/a.mp4")}},
        {"type": "MEDIA", "value": {"url": media.url("/a.mp4"), "mediaType": "VIDEO"}},
        {"type": "URL", "value": media.url("/broken.mp4")},
        {"type": "STRING", "value": "no address"},
    )
    scored = {"outputType": {"scalarType": "NUMBER"}, "score": 0.97}
    assert got["results"] == [
        scored,
        scored,
        "SpecSem: undecodable.",
        "SpecSem: the input has no address of a video.",
    ]
    assert len([path for _, path, _ in media.asked if path == "/a.mp4"]) == 1, "asked twice, fetched once"
    assert got["manifest"]["signalTypeIds"] == [got["signalTypeId"]]
    assert got["disabled"] == {"disabled": False}


def test_an_organisation_without_an_address_can_t_use_it(service: Server) -> None:
    got = in_coop({"serviceUrl": ""})
    assert got["disabled"]["disabled"] is True


def test_a_service_that_refuses_is_an_error_with_its_code(service: Server) -> None:
    outside = {"type": "URL", "value": "https://127.0.0.1:9/a.mp4"}
    assert in_coop({"serviceUrl": service.url}, outside)["results"] == ["SpecSem: url_refused."]
