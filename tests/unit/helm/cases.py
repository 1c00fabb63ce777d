"""Lists the cases for which the tests render the chart. Each case covers a feature of the chart.

A case has values and the objects that the user creates, such as Secrets.
"""

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from tests.unit.helm.render import Doc, render

STORE_KEYS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})
SECRETS = {
    "Secret/store": STORE_KEYS,
    "Secret/ray": frozenset({"auth_token"}),
    "Secret/endpoint": frozenset({"token"}),
}
PRESETS = ("trial", "one-node", "two-pools", "serve-only")
GPU = {"nodeSelector": {"example.org/accelerator": "h100"}}
BASE: dict[str, Any] = {
    "store": {"bucket": "training-runs", "existingSecret": "store"},
    "auth": {"existingSecret": "ray"},
    "endpoint": {"token": {"existingSecret": "endpoint"}, "groups": {"replica": GPU}},
    "cluster": {"groups": {"learner": GPU, "rollout": GPU}},
}
FIXED = {"cluster": {"autoscaler": {"enabled": False}}}
JOBS = ("curate", "sft", "grpo", "evaluate", "doctor")
ALL_JOBS = {"jobs": {job: {"enabled": True} for job in JOBS}}
REDIS = {"enabled": True, "redisAddress": "redis.example.org:6379", "existingSecret": "redis"}


@dataclass(frozen=True, slots=True)
class Case:
    """One set of values with which the chart is rendered.

    Example:
        Case("trial", preset="trial")
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    """The name of the preset that `values` override, or None."""
    given: dict[str, frozenset[str]] = field(default_factory=dict)
    """Maps an object that the user creates, such as "Secret/keys", to the object's keys.

    The Secrets in SECRETS exist in every case, so they are left out.
    """

    @property
    def outside(self) -> dict[str, frozenset[str]]:
        """A map from each object that the user creates, such as "Secret/store", to its keys."""
        return SECRETS | self.given

    def docs(self, major: int = 4) -> tuple[Doc, ...]:
        return render(self.values, self.preset, major)

    def __str__(self) -> str:
        return self.name


def on_base(*changes: dict[str, Any]) -> dict[str, Any]:
    """Return BASE with all changes merged into it. A later change overrides an earlier one.

    Example:
        on_base({"store": {"bucket": "b"}})["store"]  # {"bucket": "b", "existingSecret": "store"}
    """
    # BASE contains the dict GPU in several places. JSON makes one copy for each place, but deepcopy
    # would make one copy for all.
    merged = json.loads(json.dumps(BASE))
    for change in changes:
        _merge(merged, change)
    return merged


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def _queue(kind: str) -> dict[str, Any]:
    return {"queue": {"kind": kind, "name": "research", "priorityClass": "batch"}}


PRESET_VALUES: dict[str, Any] = {
    "target": "eks",
    "store": {"bucket": "training-runs", "existingSecret": "store"},
    "auth": {"existingSecret": "ray"},
    "endpoint": {"token": {"existingSecret": "endpoint"}},
}
CASES = [Case(name, PRESET_VALUES, name) for name in PRESETS] + [
    Case("default", BASE),
    Case(
        "a key for each client",
        on_base(
            {"endpoint": {"token": {"existingSecret": None}, "keys": {"existingSecret": "keys"}}}
        ),
        given={"Secret/keys": frozenset({"keys.json"})},
    ),
    Case("jobs on clusters of their own", on_base(ALL_JOBS)),
    Case(
        "jobs on the shared cluster",
        on_base(
            {"jobs": {job: {"enabled": True, "cluster": "shared"} for job in ALL_JOBS["jobs"]}}
        ),
    ),
    Case(
        "jobs with deadlines and deletion rules",
        on_base(
            {
                "jobs": {
                    "grpo": {
                        "enabled": True,
                        "activeDeadlineSeconds": 86400,
                        "preRunningDeadlineSeconds": 3600,
                        "args": ["grpo.steps=10"],
                        "deletionRules": [
                            {
                                "policy": "DeleteCluster",
                                "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 600},
                            },
                            {
                                "policy": "DeleteSelf",
                                "condition": {"jobStatus": "FAILED", "ttlSeconds": 86400},
                            },
                        ],
                    }
                }
            }
        ),
    ),
    Case("cron", on_base({"jobs": {"evaluate": {"enabled": True, "schedule": "0 3 * * *"}}})),
    Case(
        "kueue",
        on_base(
            ALL_JOBS,
            FIXED,
            _queue("kueue"),
            {"queue": {"topology": {"mode": "required", "level": "example.org/rack"}}},
        ),
    ),
    Case("volcano", on_base(ALL_JOBS, FIXED, _queue("volcano"))),
    Case("yunikorn", on_base(ALL_JOBS, FIXED, _queue("yunikorn"))),
    Case(
        "incremental upgrade",
        on_base(
            {
                "endpoint": {
                    "upgrade": "incremental",
                    "gatewayClassName": "istio",
                    "autoscaler": {"enabled": True},
                    "autoscaling": {"maxReplicas": 4},
                    "groups": {"replica": {"maxReplicas": 4}},
                }
            }
        ),
    ),
    Case(
        "ingress and HTTPRoute",
        on_base(
            {
                "endpoint": {
                    "ingress": {
                        "enabled": True,
                        "className": "nginx",
                        "host": "vision.example.org",
                        "tlsSecret": "certificate",
                    },
                    "httpRoute": {
                        "enabled": True,
                        "parentRefs": [{"name": "edge"}],
                        "hostnames": ["vision.example.org"],
                    },
                }
            }
        ),
    ),
    Case(
        "external secret",
        on_base(
            {
                "store": {
                    "existingSecret": "from-vault",
                    "externalSecret": {
                        "enabled": True,
                        "secretStoreRef": {"name": "vault", "kind": "ClusterSecretStore"},
                        "remoteRefs": {
                            key: {"key": "training/s3", "property": key}
                            for key in sorted(STORE_KEYS)
                        },
                    },
                }
            }
        ),
    ),
    Case(
        "fault tolerance",
        on_base(
            ALL_JOBS,
            {"cluster": {"gcsFaultTolerance": REDIS}, "endpoint": {"gcsFaultTolerance": REDIS}},
        ),
        given={"Secret/redis": frozenset({"redis-password"})},
    ),
    Case(
        "cloud identity",
        on_base(
            {
                "store": {"existingSecret": None},
                "serviceAccounts": {
                    "runs": {
                        "annotations": {
                            "eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/training"
                        }
                    },
                    "endpoint": {
                        "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/reading"}
                    },
                },
            }
        ),
    ),
    Case(
        "monitoring",
        on_base(
            {
                "monitoring": {
                    "podMonitors": {"enabled": True},
                    "rules": {"enabled": True},
                    "dashboards": {"enabled": True},
                }
            }
        ),
    ),
    Case(
        "spot and topology spread",
        on_base(
            {
                "cluster": {
                    "groups": {
                        "rollout": {
                            "spot": {"enabled": True},
                            "topologySpread": "topology.kubernetes.io/zone",
                        }
                    }
                },
                "imagePullSecrets": ["registry"],
            }
        ),
        given={"Secret/registry": frozenset({".dockerconfigjson"})},
    ),
    Case(
        "SeaweedFS that keeps its data",
        on_base({"seaweedfs": {"enabled": True, "persistence": {"enabled": True}}}),
    ),
    Case(
        "open",
        on_base(
            {
                "auth": {"mode": "disabled", "existingSecret": None},
                "endpoint": {"token": {"existingSecret": None, "open": True}},
            }
        ),
    ),
    Case(
        "named and labelled by the user",
        on_base(
            {
                "fullnameOverride": "vision",
                "image": {
                    "repository": "registry.example.org/awares",
                    "digest": f"sha256:{'a' * 64}",
                },
                "serviceAccounts": {"runs": {"create": False, "name": "identity"}},
                "pods": {
                    "labels": {"team": "vision"},
                    "annotations": {"example.org/owner": "vision"},
                },
                "endpoint": {
                    "service": {"port": 80, "annotations": {"example.org/lb": "internal"}},
                    "ingress": {"enabled": True, "host": "vision.example.org"},
                    "httpRoute": {
                        "enabled": True,
                        "parentRefs": [{"name": "edge", "namespace": "gateways"}],
                    },
                },
            },
            ALL_JOBS,
        ),
        given={"ServiceAccount/identity": frozenset()},
    ),
    Case(
        "a judge and callers by name",
        on_base(
            {
                "pods": {
                    "env": [
                        {
                            "name": "JUDGE_KEY",
                            "valueFrom": {"secretKeyRef": {"name": "judge", "key": "key"}},
                        }
                    ]
                },
                "setup": {
                    "curate": {
                        "judge": "endpoint",
                        "both_wrong": "LR",
                        "judge_endpoint": {
                            "url": "http://judge.models.svc:8000/v1",
                            "model": "judge",
                            "api_key_variable": "JUDGE_KEY",
                        },
                    }
                },
                "networkPolicy": {
                    "extraEgress": [
                        {
                            "to": [
                                {
                                    "namespaceSelector": {
                                        "matchLabels": {"kubernetes.io/metadata.name": "models"}
                                    }
                                }
                            ]
                        }
                    ],
                    "endpoint": {
                        "from": [{"podSelector": {"matchLabels": {"app": "shop"}}}],
                        "cidrs": ["192.0.2.0/24"],
                    },
                    "dashboard": {"from": [{"podSelector": {"matchLabels": {"app": "portal"}}}]},
                    "operator": {"namespaceLabels": {"kubernetes.io/metadata.name": "kuberay"}},
                },
            },
            ALL_JOBS,
        ),
        given={"Secret/judge": frozenset({"key"}), "Host/judge.models.svc": frozenset()},
    ),
    Case(
        "kueue for the endpoint, too",
        on_base(FIXED, _queue("kueue"), {"queue": {"endpoint": True}}),
    ),
    Case("the doctor as a test", on_base({"tests": {"doctor": {"enabled": True}}})),
    Case(
        "no policies, no tests",
        on_base({"networkPolicy": {"enabled": False}, "tests": {"enabled": False}}),
    ),
]


def docs(name: str) -> tuple[Doc, ...]:
    """Return the documents of the case with this name, rendered by helm 4."""
    return next(case for case in CASES if case.name == name).docs()
