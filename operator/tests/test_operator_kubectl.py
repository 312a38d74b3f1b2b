"""``kubectl marketfeed`` against a real API server: what it prints is what then happens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from operator_kubelet import free_port, kubelet
from operator_support import Admin, eventually

from marketfeed_cli.kubectl.preview import as_json, preview
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.assign import Reading
from marketfeed_operator.desired import reading_of
from marketfeed_operator.kinds import CONFIG_MAP

PORT = free_port()
SPEC = {"venue": "binance_us", "symbols": ["AA", "BB", "CC", "DD"], "kafka": {"bootstrapServers": "k:9092"}}


def sound(**changes) -> Spec:
    found = parse({**SPEC, **changes})
    assert isinstance(found, Spec), found
    return found


def test_a_preview_tells_what_comes_goes_and_moves():
    now = {0: Reading(frozenset(("AA", "BB", "CC", "DD")), frozenset())}
    then = sound(symbols=["AA", "BB", "CC", "EE"], shardSize=2, logging={"level": "DEBUG"})
    found = preview("feed", now, sound(), then, frozenset(then.symbols or ()))
    assert (found.added, found.removed) == (("EE",), ("DD",))
    assert found.moved == {"CC": ("feed-shard-0", "feed-shard-1")}
    assert found.shards == {"feed-shard-0": (4, 2), "feed-shard-1": (0, 2)}
    assert found.settings == {"spec.logging.level": ("INFO", "DEBUG"), "spec.shardSize": (50, 2)}
    told = as_json(found)
    assert told["moved"] == [{"symbol": "CC", "from": "feed-shard-0", "to": "feed-shard-1"}]
    assert told["shards"][1] == {"name": "feed-shard-1", "symbolsNow": 0, "symbolsThen": 2}
    assert told["settings"][1] == {"path": "spec.shardSize", "now": 50, "then": 2}
    assert preview("feed", now, sound(), sound(), frozenset(sound().symbols or ())).empty


@pytest.fixture(scope="module")
def operator(start_operator):
    return start_operator(POD_METRICS_PORT=str(PORT))


@pytest.fixture
def plugin(api_server, admin: Admin):
    if api_server.programs is None or not (api_server.programs / "kubectl").exists():
        pytest.skip("there is no kubectl beside the API server's programs")
    environment = {
        "PATH": f"{api_server.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(api_server.kubeconfig),
        "HOME": str(api_server.kubeconfig.parent),
    }

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "marketfeed", *arguments, "--namespace", admin.namespace]
        return subprocess.run(
            command, env=environment, input=given, capture_output=True, text=True, check=False
        )

    return run


def file(name: str = "feed", **changes) -> str:
    body = {"apiVersion": "marketfeed.dev/v1alpha1", "kind": "MarketFeed", "metadata": {"name": name}}
    return yaml.safe_dump({**body, "spec": {**SPEC, **changes}})


@pytest.mark.integration
async def test_what_plan_says_is_what_then_happens(admin: Admin, operator, plugin):
    before = plugin("plan", "-f", "-", "-o", "json", given=file())
    assert before.returncode == 0, before.stderr
    assert json.loads(before.stdout)["new"] is True
    async with kubelet(admin.cluster, admin.namespace, PORT):
        await admin.feed("feed", **SPEC)

        async def read() -> dict[str, list[str]]:
            found = await admin.cluster.list_all(CONFIG_MAP, admin.namespace, "marketfeed.dev/feed=feed")
            return {each["metadata"]["name"]: sorted(reading_of(each["data"]).symbols) for each in found}

        async def at_first():
            return await read() == {"feed-shard-0": ["AA", "BB", "CC", "DD"]}

        await eventually(at_first)
        same = plugin("plan", "-f", "-", given=file())
        assert same.stdout == "MarketFeed feed: nothing would change\n", same.stderr
        planned = plugin("plan", "-f", "-", given=file(symbols=["AA", "BB", "CC", "EE"], shardSize=2))
        assert "CC  feed-shard-0 -> feed-shard-1" in planned.stdout, planned.stderr
        assert "1 symbol added: EE" in planned.stdout
        assert await read() == {"feed-shard-0": ["AA", "BB", "CC", "DD"]}, "a plan changes nothing"
        await admin.feed("feed", **{**SPEC, "symbols": ["AA", "BB", "CC", "EE"]}, shardSize=2)

        async def as_planned():
            return await read() == {"feed-shard-0": ["AA", "BB"], "feed-shard-1": ["CC", "EE"]}

        await eventually(as_planned)

        async def ready():
            return json.loads(plugin("status", "feed", "-o", "json").stdout)["shards"]["ready"] == 2

        await eventually(ready)
        told = plugin("status", "feed").stdout
        assert "feed-shard-1" in told
        assert "AllReady" in told


@pytest.mark.integration
def test_mistakes_are_told_in_a_line(plugin):
    wrong = plugin("plan", "-f", "-", given=file(shardSize=0))
    assert (wrong.returncode, wrong.stderr) == (
        2, "error: spec.shardSize=0: input should be greater than or equal to 1\n",
    )  # fmt: skip
    refused = plugin("plan", "-f", "-", given=file(name="x" * 41))
    assert refused.returncode == 1
    assert "at most 40 characters" in refused.stderr
    assert plugin("status", "absent").stderr.startswith("error: Error from server (NotFound)")
    assert plugin("plan", "-f", "/nowhere.yaml").returncode == 2
    assert "no MarketFeed here" in plugin("status").stdout
