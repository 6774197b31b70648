"""Amazon Web Services: EC2 accounts, one manager for each account and region.

Credentials   An access key of an IAM user (`Access Key ID`, `Secret Access Key`), and optionally the ARN of a role that
              is assumed with it (session name `ManageIQ-EC2`). They are checked with DescribeRegions.
Permissions   ec2:DescribeRegions, ec2:DescribeAvailabilityZones, ec2:DescribeInstanceTypes, ec2:DescribeInstances,
              ec2:DescribeImages; sts:AssumeRole when a role is given. A missing one makes the refresh partial, names
              the call in `last_refresh_error`, and archives nothing of what that call reads.
Endpoint      The endpoint URL of the manager is honoured (VPC endpoints, simulators), with its certificate authority
              and `verify_ssl`; a proxy comes from the manager's `http_proxy` endpoint, else from the settings
              `http_proxy.ec2` or `http_proxy.default`.
What is read  Availability zones; instance types (flavors); instances, with hardware, operating system, disks, networks
              and tags (labels); images: the account's own, those shared with it, on request all public ones, and those
              that instances use. Settings below `ems_refresh.ec2`: get_private_images, get_shared_images,
              get_public_images, public_images_filters, ignore_terminated_instances, page_size.
Limits        Sizes of EBS disks are read with the volumes, not here. An instance of a type that Amazon no longer lists
              gets the flavor "unknown". Identities of EC2 are global: an account that is removed and added again finds
              its archived VMs. Throttled calls are repeated with growing, jittered pauses.
"""

from miq.providers.amazon.manager import CloudManager, RefreshWorker
from miq.providers.base.manager import Provider

PROVIDER = Provider(
    name="amazon",
    managers=(CloudManager,),
    worker_types=(RefreshWorker,),
    sdk="miq.providers.amazon.connection",
    settings={"ems_refresh": {"ec2": {"page_size": 500}}},
)
