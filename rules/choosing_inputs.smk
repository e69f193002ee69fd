"""Input functions and parameters of write_back.smk and promote.smk."""

from dailies import ledger, promotion


@cache
def check_ledger():
    """End the invocation, before anything is rendered, when the store cannot be written to."""
    if workflow.local_exec:
        told(ledger.refuse_unwritable, config, LAYOUT.upgraded)


def evaluations(wildcards):
    """The record of what was written back to MLflow, if the configuration wants it written."""
    if not config["write_back"]:
        return []
    check_ledger()
    return [LAYOUT.evaluations]


def chosen_model(wildcards):
    """The folder of the model to promote; ends the invocation when it cannot be."""
    return told(promotion.decided, config, LAYOUT).model
