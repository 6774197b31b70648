"""Making the changes: the simulated account through its API, and the log of what was done.

Every call carries two headers that name its step and its time; the simulator draws all random numbers of that call from
the one and dates what it makes by the other, so a replay of the log gives the same ids, whatever else was asked
meanwhile. The network, the key pair and the spare volumes are the same in every account and have names in place of
steps.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from miq.demo.account import SUBNETS, Account, account_of, first_changes, next_change, shortest_log
from miq.demo.changes import Change, ChangeLog
from miq.demo.simulator import ACCESS_KEY, REGION, SECRET_KEY, SEED_HEADER, TIME_HEADER

#: when the network came to be, in seconds since 1970
AGES_AGO = 1767225600

#: changes in the log from which on it is shortened at the next start
LONG = 200

PUBLIC_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFNKpITvACLIVjb/TWYumpPHjaYqTjNiqMTBx/FiQxoF demo"
_TRIES = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}, user_agent_extra="miq-demo")


class Cloud:
    """The account behind the endpoint, as the one who changes it sees it."""

    def __init__(self, url: str, log: Path) -> None:
        self.account = Account()
        self.ids: dict[str, str] = {}
        self._log = ChangeLog(log)
        self._subnets: dict[str, str] = {}
        self._seeded("")
        session = boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)
        self._ec2: Any = session.client("ec2", endpoint_url=url, config=_TRIES)
        self._ec2.meta.events.register("before-call.ec2", self._mark)

    def restore(self) -> int:
        """Make the account as the log says, a new one if there is none; how many changes that took."""
        changes = self._log.load()
        if not changes or len(changes) >= LONG:
            changes = shortest_log(account_of(changes)) if changes else [_now(change) for change in first_changes()]
            self._log.rewrite(changes)
        self._found()
        for change in changes:
            self._make(change)
        return len(changes)

    def step(self) -> Change:
        """Make the next change and log it."""
        change = _now(next_change(self.account))
        self._make(change)
        self._log.append(change)
        return change

    # -- the calls -----------------------------------------------------------------------------------------------------

    def _mark(self, params: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore's own signature
        params["headers"] |= {SEED_HEADER: f"{self._seed}.{self._calls}", TIME_HEADER: str(self._time)}
        self._calls += 1

    def _seeded(self, seed: object, at: int = AGES_AGO) -> None:
        self._seed, self._time, self._calls = str(seed), at, 0

    def _found(self) -> None:
        """What is there before the first machine."""
        self._seeded("network")
        vpc = self._ec2.create_vpc(CidrBlock="10.42.0.0/16", TagSpecifications=_tags("vpc", {"Name": "demo"}))
        for letter, block in SUBNETS.items():
            subnet = self._ec2.create_subnet(
                VpcId=vpc["Vpc"]["VpcId"],
                CidrBlock=block,
                AvailabilityZone=REGION + letter,
                TagSpecifications=_tags("subnet", {"Name": f"demo-{letter}"}),
            )
            self._subnets[letter] = subnet["Subnet"]["SubnetId"]
        self._seeded("key")
        self._ec2.import_key_pair(KeyName="demo", PublicKeyMaterial=PUBLIC_KEY)
        for name in ("spare-01", "spare-02"):
            self._seeded(name)
            tags = _tags("volume", {"Name": name})
            self._ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=50, VolumeType="gp3", TagSpecifications=tags)

    def _make(self, change: Change) -> None:
        self._seeded(change.step, change.at)
        getattr(self, f"_{change.verb}")(change)
        self.account = self.account.after(change)

    def _launch(self, change: Change) -> None:
        wanted = change.values
        tags = {"Name": change.name, **wanted["tags"]}
        card = {"DeviceIndex": 0, "SubnetId": self._subnets[wanted["zone"]], "PrivateIpAddress": wanted["address"]}
        card |= {"AssociatePublicIpAddress": wanted["zone"] == "a", "DeleteOnTermination": True}
        answer = self._ec2.run_instances(
            ImageId=wanted["image"],
            InstanceType=wanted["type"],
            ClientToken=f"demo-{change.step}",
            KeyName="demo",
            MinCount=1,
            MaxCount=1,
            NetworkInterfaces=[card],
            BlockDeviceMappings=_disks(wanted["data_gb"]),
            TagSpecifications=_tags("instance", tags) + _tags("volume", {"Name": change.name}),
        )
        self.ids[change.name] = answer["Instances"][0]["InstanceId"]

    def _start(self, change: Change) -> None:
        self._ec2.start_instances(InstanceIds=[self.ids[change.name]])

    def _stop(self, change: Change) -> None:
        self._ec2.stop_instances(InstanceIds=[self.ids[change.name]])

    def _tag(self, change: Change) -> None:
        tag = {"Key": change.values["key"], "Value": change.values["value"]}
        self._ec2.create_tags(Resources=[self.ids[change.name]], Tags=[tag])

    def _resize(self, change: Change) -> None:
        wanted = {"Value": change.values["type"]}
        self._ec2.modify_instance_attribute(InstanceId=self.ids[change.name], InstanceType=wanted)

    def _terminate(self, change: Change) -> None:
        self._ec2.terminate_instances(InstanceIds=[self.ids[change.name]])

    def _skip(self, change: Change) -> None:
        return


def _now(change: Change) -> Change:
    return replace(change, at=int(time.time()))


def _tags(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def _disks(data_gb: int) -> list[dict[str, Any]]:
    sizes = {"/dev/xvda": 16} | ({"/dev/xvdf": data_gb} if data_gb else {})
    disk = {"VolumeType": "gp3", "DeleteOnTermination": True}
    return [{"DeviceName": name, "Ebs": {**disk, "VolumeSize": size}} for name, size in sizes.items()]
