"""Who decides while a run goes on: deadlines, stage limits, people who agree, higher budgets."""

from pathlib import Path

import pytest
from aiohttp import web
from support.toy_market import usdc

from agentkit.runtime import approve
from agentkit.runtime.approve import Question


async def webhooked(answer: web.Response, tmp_path: Path) -> tuple[bool, list[dict[str, object]]]:
    seen: list[dict[str, object]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append({**await request.json(), "auth": request.headers.get("Authorization")})
        return answer

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    question = Question(
        run="r1", graph="g", node="n", kind="infer", provider="p", amount=usdc("0.5")
    )
    said = await approve.webhook(f"http://127.0.0.1:{port}/", "secret").agreed(question)
    await runner.cleanup()
    return said, seen


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: web.json_response({"approve": True}), True),
        (lambda: web.json_response({"approve": "yes"}), False),
        (lambda: web.json_response({"approve": True}, status=202), False),
        (lambda: web.json_response([True]), False),
        (lambda: web.Response(text="true"), False),
        (lambda: web.Response(status=500), False),
    ],
)
async def test_a_webhook_says_yes_in_one_way_only(
    tmp_path: Path, answer: object, said: bool
) -> None:
    heard, (question,) = await webhooked(answer(), tmp_path)  # type: ignore[operator]
    assert heard is said
    assert question["node"] == "n"
    assert question["amount"] == usdc("0.5").encode()
    assert question["auth"] == "Bearer secret"


async def test_a_webhook_that_is_not_there_is_a_no() -> None:
    question = Question(run="r", graph="g", node="n", kind="infer", provider="p", amount=usdc("1"))
    assert await approve.webhook("http://127.0.0.1:9/").agreed(question) is False
