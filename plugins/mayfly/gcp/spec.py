"""What may be said of Google Cloud in targets.yaml: the key `gcp` of a target with backend dataproc."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, Strict, ValidationInfo, field_validator, model_validator

from mayfly.contract.nodes import LONGEST_LIFE, GcpPlan, NfsShare
from mayfly.gcp.machines import FAMILIES, boot_disks
from mayfly.spec.fields import Duration, KeyedError, Model, Size
from mayfly.units import format_duration

IMAGES: Final = ("2.2", "2.3", "3.0")
_MOUNT: Final = r"/shared(/[A-Za-z0-9._-]+)+"


def _like(pattern: str, what: str) -> AfterValidator:
    """A value that matches, or an error that says `what` one looks like."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{value!r} is no {what}")
        return value

    return AfterValidator(check)


def _between(least: float, most: float) -> AfterValidator:
    def check(value: float) -> float:
        if not least <= value <= most:
            raise ValueError(
                f"{format_duration(value)} is not allowed; from {format_duration(least)} to {format_duration(most)}"
            )
        return value

    return AfterValidator(check)


Project = Annotated[
    str, _like(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", 'project id; write its id, as in "data-prod-123"')
]
Region = Annotated[str, _like(r"[a-z]+-[a-z]+\d{1,2}", 'region; write one as in "europe-west3"')]
Zone = Annotated[str, _like(r"[a-z]+-[a-z]+\d{1,2}-[a-z]", 'zone; write one of the region\'s, as in "europe-west3-b"')]
Account = Annotated[
    str,
    _like(
        r"[a-z0-9][a-z0-9.-]*@[a-z0-9.-]+\.gserviceaccount\.com",
        'service account; write its address, as in "nodes@data-prod-123.iam.gserviceaccount.com"',
    ),
]
Tag = Annotated[
    str, _like(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "network tag; use lower-case letters, digits and hyphens")
]
Family = Annotated[str, _like("|".join(FAMILIES), f"machine family Mayfly knows; known: {', '.join(FAMILIES)}")]
Image = Annotated[
    str,
    _like(
        rf"({'|'.join(re.escape(image) for image in IMAGES)})(\.\d+)?(-[a-z]+\d+)?",
        f'image Mayfly was made for; allowed: {", ".join(IMAGES)}, also as in "2.2.45-debian12"',
    ),
]
CustomImage = Annotated[
    str,
    _like(
        r"(https://www\.googleapis\.com/compute/v1/)?projects/[a-z0-9.:-]+/global/images/(family/)?[a-z][a-z0-9-]{0,62}",
        'image; write "projects/PROJECT/global/images/NAME", or ".../images/family/NAME" for the newest of a family',
    ),
]
Subnet = Annotated[
    str,
    _like(
        r"(https://www\.googleapis\.com/compute/v1/)?(projects/[a-z0-9.:-]+/regions/[a-z0-9-]+/subnetworks/)?[a-z][a-z0-9-]{0,62}",
        'subnetwork; write its name, or "projects/PROJECT/regions/REGION/subnetworks/NAME"',
    ),
]
Key = Annotated[
    str,
    _like(
        r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+",
        'key; write "projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY"',
    ),
]
Endpoint = Annotated[str, _like(r"[A-Za-z0-9.-]+:\d{1,5}", 'endpoint; write "host:port"')]


class ShareSpec(Model):
    """A directory that every node sees."""

    mount: Annotated[str, _like(_MOUNT, 'place for a share; write a path below /shared, as in "/shared/data"')] = Field(
        description="Where nodes see it: below /shared"
    )
    server: Annotated[str, _like(r"[A-Za-z0-9][A-Za-z0-9.-]*", "host name or IPv4 address of a server")] | None = Field(
        default=None, description="NFS server (Filestore's address); without it `export` is a path on the nodes"
    )
    export: Annotated[str, _like(r"/[^\s'\"\\$`;]*", 'path of an export; write it as in "/vol1"')] = Field(
        description="Path on the server"
    )
    options: Annotated[str, _like(r"[A-Za-z0-9_=.,-]*", 'list of mount options; write "ro,nconnect=4"')] = Field(
        default="", description="Mount options beyond Mayfly's own"
    )

    @field_validator("mount", "export")
    @classmethod
    def _no_way_up(cls, value: str) -> str:
        if ".." in value.split("/"):
            raise ValueError(f"{value!r} goes up with `..`; write the path itself")
        return value


class TargetGcp(Model):
    """The `gcp` key of a target with `backend: dataproc`. Only project and region must be given."""

    project: Project = Field(description="Project that pays")
    region: Region = Field(description="Where clusters are made")
    zone: Zone | None = Field(default=None, description="By default Google chooses one with room")
    image: Image = Field(default="2.2", description=f"Dataproc image: {', '.join(IMAGES)}, or one build of these")
    custom_image: CustomImage | None = Field(
        default=None, description="An image of your own, made from one of Dataproc's; takes the place of `image`"
    )
    subnet: Subnet | None = Field(default=None, description="By default the network `default`")
    service_account: Account | None = Field(
        default=None, description="Of the nodes; by default Compute Engine's, which may do far too much"
    )
    impersonate: Annotated[tuple[Account, ...], Strict(False)] = Field(
        default=(), description="Service accounts through which Mayfly acts; the last one is who calls"
    )
    tags: Annotated[tuple[Tag, ...], Strict(False)] = Field(default=(), max_length=64, description="Network tags")
    kms_key: Key | None = Field(default=None, description="Key of your own for the nodes' disks")
    internal_ip_only: bool = Field(default=True, description="Nodes have no public addresses")
    gateway: bool = Field(default=True, description="Component gateway: the way to Dask's dashboard")
    shielded: bool = Field(default=True, description="Secure boot, vTPM and integrity monitoring")
    families: Annotated[tuple[Family, ...], Strict(False)] = Field(
        default=("n2",), min_length=1, description="Machine families that may be used; the first that fits is taken"
    )
    disk_type: Literal["pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"] = Field(
        default="pd-balanced", description="Boot disks"
    )
    disk: Size = Field(default=100 * 10**9, description="Boot disk of each node, at least 30 GB")
    local_ssds: int = Field(default=0, ge=0, le=24, description="Local SSDs (375 GB each) of a worker node, for spill")
    secondary: Literal["spot", "preemptible", "on-demand"] | None = Field(
        default=None, description="What nodes beyond `primary` are; by default all are primary"
    )
    primary: int = Field(default=2, ge=2, le=1000, description="Primary nodes where there are secondary ones")
    autoscaling: bool = Field(default=True, description="Of adaptive jobs: nodes come and go with the load")
    idle_ttl: Annotated[Duration, _between(300, LONGEST_LIFE)] = Field(
        default=3600.0, description="Dataproc deletes a cluster that had nothing to do for so long"
    )
    shares: Annotated[tuple[ShareSpec, ...], Strict(False)] = Field(
        default=(), max_length=16, description="Directories that every node sees below /shared"
    )
    endpoint: Endpoint | None = Field(default=None, description="host:port in the place of Google's")
    emulator: bool = Field(default=False, description="Only for emulators: without one, Google is not asked either")
    call_deadline: Annotated[Duration, _between(1, 600)] = Field(
        default=60.0, description="How long one call is tried before it counts as no answer"
    )
    settle: Annotated[Duration, _between(0, 7200)] = Field(
        default=300.0, description="How long Airflow may take to notice that a task's process is dead"
    )

    @field_validator("disk")
    @classmethod
    def _disk_size(cls, value: int) -> int:
        if not 30 * 10**9 <= value <= 64_000 * 10**9:
            raise ValueError("a boot disk has from 30 GB (the image's own size) to 64 TB")
        return value

    @field_validator("families", "tags", "shares")
    @classmethod
    def _no_twins(cls, value: tuple[object, ...], info: ValidationInfo) -> tuple[object, ...]:
        names = [item.mount if isinstance(item, ShareSpec) else item for item in value]
        twins = {str(name) for name in names if names.count(name) > 1}
        if twins:
            raise ValueError(f"{', '.join(sorted(twins))} stands there twice; keep one")
        return value

    @model_validator(mode="after")
    def _one_image(self) -> TargetGcp:
        if self.custom_image is not None and "image" in self.model_fields_set:
            raise KeyedError("gcp.image", "an image of your own brings its version with it; keep one of the two keys")
        return self

    @model_validator(mode="after")
    def _disk_for_each_family(self) -> TargetGcp:
        for family in self.families:
            if self.disk_type not in boot_disks(family):
                raise KeyedError(
                    "gcp.disk_type",
                    f"machines of family {family!r} have no boot disks of type {self.disk_type!r}, but "
                    f"{', '.join(boot_disks(family))}; choose one of these, or other gcp.families",
                )
        return self

    @model_validator(mode="after")
    def _zone_in_region(self) -> TargetGcp:
        if self.zone is not None and self.zone.rpartition("-")[0] != self.region:
            raise KeyedError("gcp.zone", f"zone {self.zone!r} is not in region {self.region!r}")
        return self

    def plan(self) -> GcpPlan:
        """As the rest of Mayfly gets it."""
        return GcpPlan(
            project=self.project,
            region=self.region,
            zone=self.zone or "",
            image=self.image,
            custom_image=self.custom_image or "",
            subnet=self.subnet or "",
            service_account=self.service_account or "",
            impersonate=self.impersonate,
            tags=self.tags,
            kms_key=self.kms_key or "",
            internal_ip_only=self.internal_ip_only,
            gateway=self.gateway,
            shielded=self.shielded,
            families=self.families,
            disk_type=self.disk_type,
            disk_gb=-(-self.disk // 10**9),
            local_ssds=self.local_ssds,
            secondary=self.secondary or "",
            primary=self.primary,
            autoscaling=self.autoscaling,
            idle_ttl=self.idle_ttl,
            shares=tuple(
                NfsShare(mount=share.mount, export=share.export, server=share.server or "", options=share.options)
                for share in self.shares
            ),
            endpoint=self.endpoint or "",
            emulator=self.emulator,
            call_deadline=self.call_deadline,
            settle=self.settle,
        )
