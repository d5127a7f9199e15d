"""Checks of the backup store: configuration, address, clock, keys, bucket, and each permission that backups need."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from tmi_ops.checks.finding import Answer, Outcome, critical, fine, not_applicable, unknown, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.network import Service, knock, look_up
from tmi_ops.errors import StoreError
from tmi_ops.store.encryption import parse_recipients, read_identities
from tmi_ops.store.s3.refusals import WRONG_KEY_CODES, WRONG_REGION_CODES
from tmi_ops.store.s3.visit import NO_KEYS, NOT_S3, PROBE, UNREACHABLE, Reply, StoreVisit

# AWS refuses requests that are 15 minutes off; half a minute already makes recovery targets inexact.
CLOCK_WARNING_S, CLOCK_REFUSED_S = 30, 15 * 60
_CLOCK_CODES = ("RequestTimeTooSkewed", "RequestExpired", "AccessDenied.RequestExpired")
_PRECONDITION_FAILED = 412


def look_at_settings(context: DiagnosisContext) -> Answer:
    settings = context.settings.store
    if not settings.is_configured:
        return critical(
            "TMI_OPS_S3_BUCKET is not set",
            "there is no place for backups",
            "set TMI_OPS_S3_BUCKET (and TMI_OPS_S3_ENDPOINT_URL for a server other than AWS)",
            "or TMI_OPS_STORE_DIRECTORY, for a directory of this machine",
            *(["tmi-ops up  # or start the embedded stack, which has a store"] if _may_use_stack(context) else []),
        )
    url = urlsplit(settings.endpoint_url or "https://")
    if settings.endpoint_url and (url.scheme not in ("http", "https") or not url.hostname):
        return critical(
            f"TMI_OPS_S3_ENDPOINT_URL is {settings.public_endpoint}",
            "this is not the address of an S3 server",
            "set TMI_OPS_S3_ENDPOINT_URL to https://host:port",
        )
    return _look_at_keys_of_age(context) or fine(settings.describe())


def _look_at_keys_of_age(context: DiagnosisContext) -> Answer | None:
    settings = context.settings.store
    try:
        parse_recipients(settings.age_recipients)
    except StoreError as error:
        return critical(error.message, "a recipient to encrypt backups for is not a valid age key", error.hint)
    if not settings.age_recipients or settings.age_identity_file is None:
        return None
    try:
        read_identities(settings.age_identity_file)
    except StoreError as error:
        return warning(error.message, "backups can be written, but not verified or restored here", error.hint)
    return None


def look_at_address(context: DiagnosisContext) -> Answer:
    """Whether an S3 server answers at the endpoint; if nothing answers, check its name and port."""
    endpoint = context.settings.store.public_endpoint
    if context.settings.store.directory is not None:
        return not_applicable("the store is a directory: there is no S3 server")
    answer = _visit(context).listing
    if answer.code == UNREACHABLE:
        # Only now: with an HTTP proxy, name and port need not be reachable from here.
        broken = _way_to(_service(context, endpoint)) if endpoint else None
        return broken or critical(answer.said, "the port is open, but no S3 server answers there", answer.hint)
    if answer.code == NOT_S3:
        return critical(
            f"what answers at {endpoint} is not an S3 server",
            "the endpoint is that of a web page, a proxy or another service",
            "set TMI_OPS_S3_ENDPOINT_URL to the address of the S3 API, not of the server's console",
        )
    return fine(f"{endpoint or 'AWS'} answers as an S3 server")


def _way_to(service: Service) -> Answer | None:
    """The problem with its name or port, if any."""
    found = look_up(service)
    if found.outcome is Outcome.OK:
        found = knock(service)
    return None if found.outcome is Outcome.OK else found


def _service(context: DiagnosisContext, endpoint: str) -> Service:
    url = urlsplit(endpoint)
    variable = "TMI_OPS_S3_ENDPOINT_URL"
    start = (
        ("tmi-ops up  # starts the embedded stack",)
        if _may_use_stack(context)
        else ("start the S3 server, or its proxy",)
    )
    return Service(
        "the S3 server", url.hostname or "", url.port or {"http": 80}.get(url.scheme, 443), variable, variable, start
    )


def _may_use_stack(context: DiagnosisContext) -> bool:
    return context.settings.environment == "development"


def look_at_clock(context: DiagnosisContext) -> Answer:
    answer = _visit(context).listing
    if answer.date is None:
        return unknown("not compared: no answer of the S3 server included its time")
    skew = (answer.received - answer.date).total_seconds()
    ahead = "ahead of" if skew > 0 else "behind"
    seen = f"this machine's clock is {abs(skew):.0f} s {ahead} the S3 server's"
    sync = ("timedatectl set-ntp true  # on the machine that is wrong; compare both with `date -u`", "chronyc makestep")
    if answer.code in _CLOCK_CODES or abs(skew) >= CLOCK_REFUSED_S:
        return critical(seen, "S3 refuses requests whose time is more than 15 minutes off", *sync)
    if abs(skew) >= CLOCK_WARNING_S:
        return warning(seen, "recovery targets are off by as much, and at 15 minutes S3 refuses every request", *sync)
    return fine(seen if abs(skew) >= 1 else "this machine's clock and the S3 server's agree")


def look_at_keys(context: DiagnosisContext) -> Answer:
    settings, answer = context.settings.store, _visit(context).listing
    own = settings.access_key_id is not None
    where = (
        "TMI_OPS_S3_ACCESS_KEY_ID and TMI_OPS_S3_SECRET_ACCESS_KEY"
        if own
        else "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the machine's role"
    )
    if answer.code == NO_KEYS:
        return critical("no keys are set", "neither TMI_OPS_S3_* nor the standard AWS chain has any", f"set {where}")
    if answer.code in WRONG_KEY_CODES:
        secret = answer.code == "SignatureDoesNotMatch"
        expired = answer.code == "ExpiredToken"
        return critical(
            f"the S3 server does not accept our keys ({answer.code})",
            "the key ID is known, but the secret key does not match it"
            if secret
            else ("the session token has expired" if expired else "the S3 server does not know this key ID"),
            f"set {where} to a valid pair"
            + (" (in the .env file, quote it if it contains `$` or `#`)" if secret else ""),
        )
    return fine(f"accepted; from {'TMI_OPS_S3_*' if own else 'the AWS credential chain'}")


def look_at_bucket(context: DiagnosisContext) -> Answer:
    visit = _visit(context)
    answer, settings = visit.listing, context.settings.store
    endpoint = f" --endpoint-url {settings.public_endpoint}" if settings.endpoint_url else ""
    if answer.code == "NoSuchBucket":
        return critical(
            f"the bucket {visit.bucket} does not exist",
            "TMI_OPS_S3_BUCKET is misspelled, or the bucket was never created",
            "set TMI_OPS_S3_BUCKET to the right name, or create it:",
            f"aws s3 mb s3://{visit.bucket} --region {settings.region}{endpoint}",
        )
    if answer.code in WRONG_REGION_CODES:
        return critical(
            f"{visit.bucket}: {answer.said}",
            f"the bucket is in another region than TMI_OPS_S3_REGION={settings.region}",
            f"aws s3api get-bucket-location --bucket {visit.bucket}{endpoint}",
            "set TMI_OPS_S3_REGION to the region it prints",
        )
    if answer.code and not answer.denied:
        return critical(
            f"{visit.bucket}: {answer.code}: {answer.said}", "the S3 server reports an error", "read its log"
        )
    return fine(f"{visit.bucket} exists")


def look_at_listing(context: DiagnosisContext) -> Answer:
    visit = _visit(context)
    if visit.listing.code:
        return _not_allowed(visit, "list", "s3:ListBucket", visit.listing)
    return fine(f"may list {visit.root}")


def look_at_putting(context: DiagnosisContext) -> Answer:
    visit = _visit(context)
    answer = visit.put()
    return _not_allowed(visit, "write", "s3:PutObject", answer) if answer.code else fine("may write objects")


def look_at_getting(context: DiagnosisContext) -> Answer:
    visit = _visit(context)
    answer = visit.get()
    if answer.code:
        return _not_allowed(visit, "read", "s3:GetObject", answer)
    if answer.content != PROBE:
        return critical(
            "an object read back differs from what was written",
            "a proxy, cache or broken disk alters objects, so backups there would be worthless",
            "set TMI_OPS_S3_ENDPOINT_URL so that it bypasses the proxy, or use another S3 server",
        )
    return fine("may read objects, and reads back what was written")


def look_at_conditional_put(context: DiagnosisContext) -> Answer:
    visit = _visit(context)
    header, answer = "If-None-Match", visit.put(only_if_absent=True)
    if answer.status == _PRECONDITION_FAILED:
        header, answer = "If-Match", visit.put_over_another()
    if answer.status == _PRECONDITION_FAILED:
        return fine("honors conditional puts (If-None-Match, If-Match)")
    return warning(
        f"ignored {header} and overwrote an object"
        if not answer.code
        else f"does not support {header} ({answer.code})",
        "this S3 server lacks conditional puts, so two concurrent writers could both believe they succeeded",
        "let only one tmi_ops at a time write backups of this environment; it checks before it writes",
        "use an S3 server with conditional puts: AWS, SeaweedFS 3.9x or MinIO of 2024 and later, Ceph Squid",
    )


def look_at_multipart(context: DiagnosisContext) -> Answer:
    visit = _visit(context)
    if context.settings.store.purpose == "prove":
        return not_applicable("keys that only verify do not need it")
    right, answer = visit.upload_in_parts()
    if answer.code:
        return _not_allowed(visit, "upload in parts", right, answer)
    return fine("may upload in parts, and abort an upload")


def look_at_deleting(context: DiagnosisContext) -> Answer:
    """Only prune and sweep delete, so all other keys should not be allowed to."""
    visit, purpose = _visit(context), context.settings.store.purpose
    answer = visit.delete()
    prunes = purpose in ("prune", "everything")
    if not answer.code and prunes:
        return fine("may delete; the doctor's object is deleted")
    if not answer.code:
        return warning(
            f"may delete, although TMI_OPS_S3_PURPOSE={purpose} does not need it",
            "anybody who obtains these keys can empty the bucket",
            f"give them the policy docs/iam/{'writer' if purpose == 'write' else 'prover'}.json",
        )
    if not answer.denied:
        return _not_allowed(visit, "delete", "s3:DeleteObject", answer)
    if not prunes:
        return fine("may not delete, and does not need to")
    finding = _not_allowed(visit, "delete", "s3:DeleteObject", answer)
    seen = f"{finding.seen}; {visit.key} remains"
    if purpose == "prune":
        return critical(seen, finding.cause, *finding.advice.steps)
    return warning(
        seen,
        "only `tmi-ops prune` needs to delete; the store grows until it runs with a key that may",
        "if these keys only write or only verify, set TMI_OPS_S3_PURPOSE=write or prove",
        *finding.advice.steps,
    )


def _not_allowed(visit: StoreVisit, action: str, right: str, answer: Reply) -> Answer:
    if not answer.denied:
        return critical(f"cannot {action}: {answer.code}: {answer.said}", "the S3 server refused", "read its log")
    of_bucket = right.startswith("s3:ListBucket")
    resource = f"arn:aws:s3:::{visit.bucket}" + ("" if of_bucket else f"/{visit.root}*")
    statement = json.dumps({"Effect": "Allow", "Action": right, "Resource": resource})
    return critical(
        f"may not {action} ({answer.said})",
        f"the keys lack {right} {'on the bucket' if of_bucket else 'on the objects of this environment'}",
        "add this statement to the policy of the keys' user or role (other servers: grant the same permission):",
        statement,
    )


def _visit(context: DiagnosisContext) -> StoreVisit:
    return context.store_visit


STORE_LINKS = (
    Link("store-settings", "store settings", Area.STORE, look_at_settings, ("settings",)),
    Link("store-address", "S3 server", Area.STORE, look_at_address, ("store-settings",)),
    Link("store-clock", "clock", Area.STORE, look_at_clock, ("store-address",)),
    Link("store-keys", "access keys", Area.STORE, look_at_keys, ("store-clock",)),
    Link("bucket", "bucket", Area.STORE, look_at_bucket, ("store-keys",)),
    Link("store-list", "listing", Area.STORE, look_at_listing, ("bucket",)),
    Link("store-put", "writing", Area.STORE, look_at_putting, ("bucket",)),
    Link("store-get", "reading", Area.STORE, look_at_getting, ("store-put",)),
    Link("store-conditional-put", "conditional put", Area.STORE, look_at_conditional_put, ("store-put",)),
    Link("store-multipart", "multipart upload", Area.STORE, look_at_multipart, ("store-put",)),
    Link("store-delete", "deleting", Area.STORE, look_at_deleting, ("store-put",)),
)
