"""Makes BUCKET in the embedded S3 where it is not, and puts POLICY on it: what the keys of its accounts may do."""

import os
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}))
end, said = time.monotonic() + 300, ""
region = os.environ["AWS_REGION"]
place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
while True:
    try:
        if os.environ["BUCKET"] not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=os.environ["BUCKET"], **place)
        client.put_bucket_policy(Bucket=os.environ["BUCKET"], Policy=os.environ["POLICY"])
        break
    except (BotoCoreError, ClientError) as err:
        if time.monotonic() > end:
            fix = "where the volume cannot keep one: global.s3.keys.generate=false, and pods have the platform's key"
            sys.exit(f"the policy of bucket {os.environ['BUCKET']} is not set: {err}. Fix: {fix}")
        if str(err) != said:
            said = str(err)
            sys.stderr.write(f"waiting: {said}\n")
    time.sleep(1)
