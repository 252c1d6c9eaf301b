"""examples/kafka as it is: publisher, connector, service and consumer, around librdkafka's mock cluster."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from kafka_cluster import KafkaCluster, kafka, kafka_cluster
from serving import DOUBLES, ROOT, environment, serving, until

EXAMPLE = ROOT / "examples" / "kafka"
CLIPS = {
    "generated.mp4": b"SCORE:0.97",
    "camera.mp4": b"SCORE:0.02",
    "broken.mp4": b"BAD:undecodable",
}


def committed(cluster: KafkaCluster) -> int:
    """How many verdicts `act` has done with, in all partitions."""
    config = {"bootstrap.servers": cluster.brokers, "group.id": "act"}
    with closing(kafka.Consumer(config)) as consumer:
        numbers = consumer.list_topics("verdicts", timeout=10).topics["verdicts"].partitions
        found = consumer.committed([kafka.TopicPartition("verdicts", at) for at in numbers], timeout=10)
        return sum(max(0, partition.offset) for partition in found)


def test_from_a_topic_to_what_is_done(tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    for name, content in CLIPS.items():
        (uploads / name).write_bytes(content)
    told, log = tmp_path / "told", tmp_path / "connect.log"
    with (
        kafka_cluster() as cluster,
        cluster.following("verdicts"),  # makes the topic
        serving(DOUBLES, tmp_path / "data") as server,
    ):
        server.wait_ready()
        brokers = {"SPECSEM_KAFKA_BROKERS": cluster.brokers, "SPECSEM_SERVICE": server.url}
        publish = [sys.executable, str(EXAMPLE / "publish.py"), *CLIPS]
        subprocess.run(publish, env=os.environ | brokers, check=True)
        connect = ["-m", "specsem", "connect", "kafka", "uploads", "--to", "verdicts", "--root"]
        with log.open("w") as stderr, told.open("w") as stdout:
            running = [
                subprocess.Popen(command, env=environment(tmp_path) | brokers, stdout=stdout, stderr=stderr)
                for command in (
                    [sys.executable, *connect, str(uploads)],
                    [sys.executable, str(EXAMPLE / "act.py")],
                )
            ]
        try:
            expected = {"generated.mp4 review", "camera.mp4 allow", "broken.mp4 review"}
            until(lambda: told.read_text().count("\n") == len(CLIPS) or running[1].poll() is not None, 60)
            assert set(told.read_text().splitlines()) == expected, log.read_text()
            until(lambda: committed(cluster) == len(CLIPS))
        finally:
            for process in running:
                process.terminate()
            ended = [process.wait(30) for process in running]
        assert ended[1] == 0, log.read_text()
        assert "Traceback" not in log.read_text()
