"""Reads a log stream back with boto3 and prints one JSON object: its events, and the group's retention and tags.

    read_logs.py ENDPOINT GROUP STREAM
"""
import json
import sys

import boto3


def events(logs, group, stream):
    """All of them, from the oldest on."""
    token, found = {}, []
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        found += [[e["timestamp"], e["message"]] for e in page["events"]]
        if not page["events"] or page["nextForwardToken"] == token.get("nextToken"):
            return found
        token = {"nextToken": page["nextForwardToken"]}


def main(endpoint, group, stream):
    logs = boto3.client("logs", endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id="reader",
                        aws_secret_access_key="reader")
    groups = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    json.dump({
        "groups": [g["logGroupName"] for g in groups],
        "retention": groups[0].get("retentionInDays"),
        "tags": logs.list_tags_log_group(logGroupName=group)["tags"],
        "streams": [s["logStreamName"] for s in streams],
        "events": events(logs, group, stream),
    }, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
