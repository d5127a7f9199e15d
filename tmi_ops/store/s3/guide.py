"""Step 1 of RESTORE.md for a store on an S3 server."""

CONNECT = """\
First set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. These keys are not in this file; ask the person who keeps them.

```sh
export AWS_ENDPOINT_URL_S3='@ENDPOINT@'
export AWS_DEFAULT_REGION='@REGION@'
ROOT='@ROOT@'
```
"""
