# One EKS cluster for Runway and its jobs, in one region. README.md tells how to apply it and what it costs.
#
# variables.tf   what can be chosen            cluster.tf, access.tf   the control plane, and who may use it
# locals.tf      what follows from that        addons.tf               CNI, DNS, pod identity
# network.tf     VPC, NAT, flow logs           nodes.tf                system nodes, one node group per pool
# kms.tf         keys                          autoscaler.tf           what the cluster autoscaler may do
# registry.tf    ECR                           budget.tf, outputs.tf   the alarm on the bill; what others need to know

terraform {
  # 1.11 is the first release in which the S3 backend's own lock (use_lockfile) is not experimental.
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.62.0"
    }
  }

  # Bucket, key and region come from a file that is not committed: terraform init -backend-config=backend.hcl
  # (backend.hcl.example). The bucket is made once, outside this state, with versioning on.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = local.tags
  }
}
