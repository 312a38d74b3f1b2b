"""Every spec that the API server accepts can be used by the operator: nothing passes the CRD and then raises."""

import asyncio
import json
from typing import Any

import pytest
from operator_specs import Specs
from operator_support import Admin
from test_operator_decide import NOW
from test_operator_desired import SECRETS

from marketfeed_consumers.settings import ConsumerSettings, DatabaseSettings
from marketfeed_devtools.seeds import fuzz_rng, fuzz_rounds
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.api.crd import crd
from marketfeed_operator.cluster import FEEDS
from marketfeed_operator.decide import Situation, decide
from marketfeed_operator.desired import Child, Defaults, Feed
from marketfeed_operator.errors import ApiError
from marketfeed_operator.facts import feed_facts
from marketfeed_operator.kinds import OPTIONAL
from marketfeed_operator.observed import Listing, Observed
from marketfeed_operator.plan import plan
from marketfeed_operator.policy import Policy
from marketfeed_service.errors import SettingsError
from marketfeed_service.settings import ServiceSettings, read
from marketfeed_workers.settings import WorkerSettings

AT_ONCE = 8
KINDS = frozenset(kind.kind for kind in OPTIONAL)
LISTING = Listing({"BTCUSDT": ("TRADING", "USDT"), "ETHBTC": ("TRADING", "BTC")})
STRICT = Policy(("registry.example",), ("high",), ("kafka",), own_endpoints=False)


def schema() -> dict[str, Any]:
    found: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def used(stored: dict[str, Any]) -> str:
    """Process a stored MarketFeed as a pass does; return "" or the failure."""
    facts = feed_facts(stored)
    spec = parse(facts.spec)
    if not isinstance(spec, Spec):
        return f"accepted by the API server, and refused by the operator: {spec}"
    for observed in (Observed(listing=LISTING, kinds=KINDS), Observed()):
        feed = Feed(facts.namespace, facts.name, facts.uid, 1, spec, Defaults("w", "c"))
        planned = plan(feed, observed)
        at = Situation(facts, spec, STRICT.refusals(facts.namespace, spec), observed, planned, applied=True)
        json.dumps(decide(at, NOW).model_dump(by_alias=True, exclude_none=True, mode="json"))
        for child in planned.children if planned is not None else ():
            if problem := started(child):
                return problem
    return ""


SETTINGS: dict[str, type[ServiceSettings]] = {
    "worker": WorkerSettings, "consumer": ConsumerSettings, "migrate": DatabaseSettings, "retain": DatabaseSettings,
}  # fmt: skip


def started(child: Child) -> str:
    """Read the settings of a child's pods, as the service does; return "" or the refusal."""
    spec = child.body["spec"] if child.body is not None and "spec" in child.body else {}
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    if template is None:
        return ""
    (container,) = template["spec"]["containers"]
    env = {each["name"]: each.get("value", SECRETS.get(each["name"])) for each in container["env"]}
    # The files of TLS exist in the pod only.
    tls = [name for name in env if name.startswith("KAFKA_SSL_")]
    given = {name: value.replace("$$", "$") for name, value in env.items() if name not in tls}
    try:
        read(SETTINGS[container["name"]], given)
    except SettingsError as error:
        return f"{container['name']} does not start: {error}"
    return ""


async def refusals(admin: Admin, stored: dict[str, Any]) -> list[str]:
    """Return the API server's refusals of the children of a stored MarketFeed, by dry runs."""
    facts = feed_facts(stored)
    spec = parse(facts.spec)
    assert isinstance(spec, Spec)
    feed = Feed(facts.namespace, facts.name, facts.uid, 1, spec, Defaults("w", "c"))
    planned = plan(feed, Observed(listing=LISTING))
    found = []
    for child in planned.children if planned is not None else ():
        if child.body is None:
            continue
        try:
            await admin.cluster.apply(child.kind, child.body, dry_run=True)
        except ApiError as error:
            found.append(f"{child.kind.kind}: {error}")
    return found


@pytest.mark.integration
async def test_fuzz_every_spec_accepted_by_the_crd_can_be_planned(admin: Admin):
    specs = Specs(schema(), fuzz_rng("specs"))
    gate = asyncio.Semaphore(AT_ONCE)
    taken: list[dict[str, Any]] = []
    refused: list[tuple[int, str]] = []

    async def dry_run(declared: Any) -> None:
        body = {
            "apiVersion": FEEDS.api_version, "kind": FEEDS.kind,
            "metadata": {"name": "fuzz", "namespace": admin.namespace}, "spec": declared,
        }  # fmt: skip
        async with gate:
            try:
                stored = await admin.cluster._request(
                    "post", FEEDS.path(admin.namespace), body=body, dry_run="All"
                )
            except ApiError as error:
                refused.append((error.status, f"{error}"))
            else:
                taken.append(stored)

    for start in range(0, fuzz_rounds(), 100):
        await asyncio.gather(*(dry_run(specs.draw()) for _ in range(min(100, fuzz_rounds() - start))))
    print(f"{len(taken)} taken, {len(refused)} refused")
    # Refusals are those of an invalid object.
    assert {status for status, _ in refused} <= {400, 422}, refused
    for stored in taken:
        try:
            problem = used(stored)
        except Exception as error:
            raise AssertionError(f"raised with {json.dumps(stored['spec'])}") from error
        assert not problem, (problem, json.dumps(stored["spec"]))
    assert len(taken) >= fuzz_rounds() // 10
    late = await asyncio.gather(
        *(refusals(admin, stored) for stored in taken[: max(20, fuzz_rounds() // 25)])
    )
    assert not [found for each in late for found in each]
    assert refused, "none was beyond a limit"
