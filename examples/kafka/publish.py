"""Says on the topic `uploads` that there are videos, as an upload service would: `publish.py FILE...`

Files are named as they lie below the folder that `specsem connect kafka` is given as its `--root`.
"""

import json
import os
import sys

from confluent_kafka import Producer

BROKERS = os.environ.get("SPECSEM_KAFKA_BROKERS", "localhost:9092")

producer = Producer({"bootstrap.servers": BROKERS, "enable.idempotence": True})
for name in sys.argv[1:]:
    record = {"path": name, "about": {"post": name}}  # `about` comes back beside the verdict
    producer.produce("uploads", json.dumps(record), key=name)
if left := producer.flush(30):
    sys.exit(f"{left} records were not taken.")
