"""What schemathesis has to be told: how a stream of lines is sent."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    return value.encode() if isinstance(value, str) else value
