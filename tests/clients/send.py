"""Sends numbered records through one client library, as its users do.

    send.py CLIENT HOST PORT COUNT      HOST may be unix:///path

Imports only the library it is asked for: each environment has its own.
"""
import asyncio
import logging
import sys


def record(i):
    """All types that applications send."""
    return {"n": i, "text": "line %d é中🙂 \"quoted\"\n" % i, "nested": {"list": [1, -2, 3.5, None, True], "empty": {}},
            "big": 2 ** 63 + i, "negative": -i, "none": None, "flag": i % 2 == 0}


def fluent_logger(host, port, count):
    from fluent import sender
    client = sender.FluentSender("app", host=host, port=port)
    for i in range(count):
        assert client.emit("web", record(i)), client.last_error
    client.close()


def fluent_logger_nanoseconds(host, port, count):
    from fluent import sender
    client = sender.FluentSender("app", host=host, port=port, nanosecond_precision=True)
    for i in range(count):
        assert client.emit_with_time("web", 1760000000.5, record(i)), client.last_error
    client.close()


def fluent_logger_async(host, port, count):
    from fluent import asyncsender
    client = asyncsender.FluentSender("app", host=host, port=port, queue_maxsize=0)
    for i in range(count):
        client.emit("web", record(i))
    client.close()


def fluent_logger_handler(host, port, count):
    from fluent import handler
    to_router = handler.FluentHandler("app.web", host=host, port=port)
    to_router.setFormatter(handler.FluentRecordFormatter({"level": "%(levelname)s"}))
    logger = logging.getLogger("test")
    logger.addHandler(to_router)
    for i in range(count):
        logger.warning(record(i))
    to_router.close()


def aiofluent(host, port, count):
    import aiofluent.sender

    async def send():
        client = aiofluent.sender.FluentSender("app", host=host, port=port)
        for i in range(count):
            assert await client.async_emit("web", record(i)), client.last_error
        writer = await client.get_writer()
        client.close()
        await writer.wait_closed()
    asyncio.run(send())


def aiofluent_python(host, port, count):
    import aiofluent

    async def send():
        client = aiofluent.FluentSender(host=host, port=port, nanosecond_precision=True)
        for i in range(count):
            assert await client.emit("app.web", record(i))
        await client.close()
    asyncio.run(send())


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
