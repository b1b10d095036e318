"""statehousectl agents and namespaces."""

import json

import pytest

from statehouse import Put


@pytest.fixture(scope="module")
def names(module_client):
    for namespace, agent in (("one", "a-1"), ("one", "a-2"), ("two", "b\n")):
        module_client.transact([Put(agent, "k", {}, namespace), Put(agent, "l", {}, namespace)])
    return module_client.transact([Put("a-1", "k", {"n": 2}, "one")]).commit_ts


def test_agents(ctl_there, names):
    assert ctl_there("agents", "--namespace", "one") == (
        0,
        (
            f"agent=a-1  keys=2  commits=2  operations=3  first=1  last={names}\n"
            "agent=a-2  keys=2  commits=1  operations=2  first=2  last=2\n"
        ),
        "",
    )
    assert ctl_there("agents", "--namespace", "one", "--prefix", "a-2")[1].startswith("agent=a-2  ")
    assert ctl_there("agents", "--namespace", "two")[1].startswith("agent=b\\n  keys=2")
    assert ctl_there("agents", "--namespace", "nowhere") == (0, "", "")


def test_agents_for_programs(ctl_there, names):
    found = [json.loads(line) for line in ctl_there("agents", "--namespace", "two", "--json")[1].splitlines()]
    assert found == [
        {
            "namespace": "two",
            "agent_id": "b\n",
            "live_keys": 2,
            "commits": 1,
            "operations": 2,
            "first_commit_ts": 3,
            "last_commit_ts": 3,
            "deleted": False,
            "forked_from": None,
        }
    ]


def test_namespaces(ctl_there, names):
    assert ctl_there("namespaces")[1] == (
        f"namespace=one  agents=2  keys=4  commits=3  operations=5  first=1  last={names}\n"
        "namespace=two  agents=1  keys=2  commits=1  operations=2  first=3  last=3\n"
    )
    [found] = [json.loads(line) for line in ctl_there("namespaces", "--prefix", "t", "--json")[1].splitlines()]
    assert (found["namespace"], found["agents"]) == ("two", 1)


def test_more_agents_than_a_page_has(ctl_there, module_client):
    module_client.transact([Put(f"{number:04}", "k", {}, "many") for number in range(1_500)])
    lines = ctl_there("agents", "--namespace", "many")[1].splitlines()
    assert [line.split()[0] for line in lines] == [f"agent={number:04}" for number in range(1_500)]
