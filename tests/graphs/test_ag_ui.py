"""Hosted graphs over AG-UI: their subgraphs are sub-agents."""

import uuid

from tests.journeys.conftest import Served
from tests.protocols.ag_ui_streams import checked, post, run_input


def test_a_subgraph_is_a_sub_agent_that_waits_for_an_answer(hosted: Served) -> None:
    url, thread = f"http://127.0.0.1:{hosted.port}/ag-ui/nested", str(uuid.uuid4())
    asked = checked(post(url, run_input(thread, state={"text": ""})).content)
    (started,) = [event for event in asked if event["type"] == "SUBAGENT_STARTED"]
    assert started["name"] == "child"
    (interrupt,) = asked[-1]["outcome"]["interrupts"]
    (suspended,) = [event for event in asked if event["type"] == "SUBAGENT_FINISHED"]
    assert suspended["outcome"] == {"type": "suspended", "interruptIds": [interrupt["id"]]}
    answer = {"interruptId": interrupt["id"], "status": "resolved", "payload": "yes"}
    answered = checked(post(url, run_input(thread, resume=[answer])).content)
    (finished,) = [event for event in answered if event["type"] == "SUBAGENT_FINISHED"]
    assert (finished["subagentRunId"], finished["outcome"]["type"]) == (started["subagentRunId"], "success")
    assert answered[-1]["outcome"] == {"type": "success"}
