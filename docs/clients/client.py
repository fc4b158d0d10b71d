"""A cti.v1 client in Python: prints each pop. Needs aiohttp. CTI_URL=ws://host:8600/ws CTI_TOKEN=... python client.py"""

import asyncio
import os

import aiohttp


async def main() -> None:
    epoch, mark = "", None  # where to resume; nothing yet
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.ws_connect(os.environ["CTI_URL"], protocols=["cti.v1"], heartbeat=20) as line:
                    hello = {"op": "hello", "id": "1", "token": os.environ["CTI_TOKEN"]}
                    await line.send_json(hello | ({"resume": mark} if mark else {}))
                    async for message in line:
                        frame = message.json()
                        if frame["type"] == "welcome" and not frame["resumed"]:
                            epoch, mark = frame["epoch"], None
                        elif "seq" in frame and frame["type"] != "welcome":  # the snapshot, then every fact
                            mark = {"epoch": epoch, "seq": frame["seq"]}
                        if frame["type"] in ("pop.shown", "pop.updated"):
                            pop = frame["data"]["view"]
                            names = [one["account"]["name"] for one in pop["candidates"]]
                            print(pop["formatted"] or pop["number"], "for", pop["queue"], names, flush=True)
                if line.close_code in (4400, 4401, 4403, 4409):
                    raise SystemExit(f"refused: {line.close_code}")
            except (aiohttp.ClientError, OSError):
                print("the line broke; trying again", flush=True)
            await asyncio.sleep(1)


asyncio.run(main())
