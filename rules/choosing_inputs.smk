"""Input functions and parameters of write_back.smk and promote.smk."""

from dailies.store import writer as ledger
from dailies.publish import promotion


@cache
def check_ledger():
    """End the invocation, before anything is rendered, when the store cannot be written to."""
    if workflow.local_exec:
        told(ledger.refuse_unwritable, settings, LAYOUT.upgraded)


def evaluations(wildcards):
    """The record of what was written back to MLflow, if the configuration wants it written."""
    if not settings.write_back:
        return []
    check_ledger()
    return [LAYOUT.evaluations]


def chosen_model(wildcards):
    """The folder of the model to promote; ends the invocation when it cannot be."""
    return told(promotion.decided, settings, LAYOUT).model
