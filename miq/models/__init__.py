"""Every table, importable by its class name."""

from miq.models.base import Base
from miq.models.cloud import AvailabilityZone, Flavor, KeyPairVm
from miq.models.ems import Authentication, AuthenticationStatus, Endpoint, ExtManagementSystem, Provider
from miq.models.ems_refresh import EmsRefresh, RefreshState
from miq.models.hardware import CustomAttribute, Disk, Hardware, Network, OperatingSystem
from miq.models.job import Job
from miq.models.miq_queue import MessageState, MiqQueue, Priority
from miq.models.miq_region import MiqDatabase, MiqRegion
from miq.models.miq_schedule import MiqSchedule
from miq.models.miq_server import MiqServer, ServerStatus
from miq.models.miq_task import MiqTask, TaskState, TaskStatus
from miq.models.miq_worker import MiqWorker, WorkerStatus
from miq.models.miq_worker_exit import MiqWorkerExit
from miq.models.miq_worker_type import MiqWorkerType
from miq.models.server_role import AssignedServerRole, ServerRole
from miq.models.settings_change import SettingsChange
from miq.models.vm import Vm
from miq.models.zone import Zone

__all__ = [
    "AssignedServerRole",
    "Authentication",
    "AuthenticationStatus",
    "AvailabilityZone",
    "Base",
    "CustomAttribute",
    "Disk",
    "EmsRefresh",
    "Endpoint",
    "ExtManagementSystem",
    "Flavor",
    "Hardware",
    "Job",
    "KeyPairVm",
    "MessageState",
    "MiqDatabase",
    "MiqQueue",
    "MiqRegion",
    "MiqSchedule",
    "MiqServer",
    "MiqTask",
    "MiqWorker",
    "MiqWorkerExit",
    "MiqWorkerType",
    "Network",
    "OperatingSystem",
    "Priority",
    "Provider",
    "RefreshState",
    "ServerRole",
    "ServerStatus",
    "SettingsChange",
    "TaskState",
    "TaskStatus",
    "Vm",
    "WorkerStatus",
    "Zone",
]
