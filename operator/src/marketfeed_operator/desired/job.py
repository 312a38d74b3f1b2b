"""Job that migrates the database schema before consumers of that version start."""

from marketfeed_operator.desired import environment, pods
from marketfeed_operator.desired.base import Child, Feed, child, digest
from marketfeed_operator.desired.streams import stored_streams
from marketfeed_operator.kinds import JOB
from marketfeed_operator.names import MIGRATION


def migration_job(feed: Feed) -> Child | None:
    """Return the migration to the schema of the consumers' image; None when nothing is stored.

    A Job is immutable and runs once per input: its name contains the hash of its inputs, the image and the database's
    address. Other changes do not run it again.
    """
    storage = feed.spec.storage
    if storage is None or not stored_streams(feed):
        return None
    images = feed.spec.images
    image = (images and images.consumer) or feed.defaults.consumer_image
    # Retention does not affect the schema.
    version = digest([image, storage.model_dump(exclude={"retention"})])[:10]
    context = environment.database_job(feed)
    container = pods.job_container(
        feed,
        name="migrate",
        image=image,
        command=["marketfeed-consumer", "migrate"],
        context=context,
        resources=None,
    )
    spec = {
        "backoffLimit": 6,
        "activeDeadlineSeconds": 3600,
        "template": pods.pod_template(
            feed,
            MIGRATION,
            container,
            context,
            spread=False,
            restartPolicy="Never",
            terminationGracePeriodSeconds=30,
        ),
    }
    return child(feed, JOB, f"{feed.name}-migrate-{version}", MIGRATION, {"spec": spec})
