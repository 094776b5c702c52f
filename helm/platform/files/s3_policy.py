"""Says what the keys of the embedded S3 may do: puts POLICY on BUCKET, once the server knows their accounts."""

import os
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}))
end, said = time.monotonic() + 300, ""
while True:
    try:
        client.put_bucket_policy(Bucket=os.environ["BUCKET"], Policy=os.environ["POLICY"])
        break
    except (BotoCoreError, ClientError) as err:
        if time.monotonic() > end:
            sys.exit(f"the policy of bucket {os.environ['BUCKET']} is not set: {err}")
        if str(err) != said:
            said = str(err)
            sys.stderr.write(f"waiting: {said}\n")
    time.sleep(1)
