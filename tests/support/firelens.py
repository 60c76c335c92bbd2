"""The configuration that the ECS agent writes for a task, with files as outputs."""

METADATA = {
    "ecs_cluster": "shop",
    "ecs_task_arn": "arn:aws:ecs:eu-west-1:111122223333:task/shop/0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "ecs_task_definition": "shop-web:42",
}
TASK = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def tag(container):
    """The tag the agent gives to docker's log driver."""
    return "%s-firelens-%s" % (container, TASK)


def configuration(sock, port, out, containers, exclude=None, join_partial=True, mem_buf_limit="25MB",
                  grace=30, storage=None, multiline=None):
    """Inputs, an optional join of docker's 16 KiB parts, exclude-pattern greps, metadata, a file for each container.

    The join stands first: records that it makes pass the filters before it again.
    """
    parts = ["[SERVICE]\n    Flush 1\n    Grace %d" % grace + ("\n    storage.path %s" % storage if storage else ""),
             "[INPUT]\n    Name forward\n    Mem_Buf_Limit %s\n    unix_path %s" % (mem_buf_limit, sock)
             + ("\n    storage.type filesystem" if storage else "")]
    if port:
        parts.append("[INPUT]\n    Name forward\n    Listen 127.0.0.1\n    Port %d" % port)
    if join_partial:
        parts.append("[FILTER]\n    Name multiline\n    Match *\n    multiline.key_content log\n"
                     "    mode partial_message\n    flush_ms 60000")
    if multiline:
        parts.append("[FILTER]\n    Name multiline\n    Match *\n    multiline.key_content log\n"
                     "    multiline.parser %s" % multiline)
    if exclude:
        parts += ["[FILTER]\n    Name   grep\n    Match %s-firelens*\n    Exclude log %s" % (c, exclude)
                  for c in containers]
    parts.append("[FILTER]\n    Name record_modifier\n    Match *\n" +
                 "\n".join("    Record %s %s" % pair for pair in METADATA.items()))
    parts += ["[OUTPUT]\n    Name file\n    Match %s-firelens*\n    Path %s\n    File %s.log\n    Format plain"
              % (c, out, c) for c in containers]
    return "\n" + "\n\n".join(parts) + "\n"
