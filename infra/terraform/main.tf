# One EKS cluster for Runway and its jobs, in one region. README.md describes how to apply it and its cost.
#
# variables.tf   settings                      cluster.tf, access.tf   control plane and its access
# locals.tf      derived values                addons.tf               CNI, DNS, pod identity
# network.tf     VPC, NAT, flow logs           nodes.tf                system nodes, node groups per pool and zone
# kms.tf         keys                          autoscaler.tf           permissions of the cluster autoscaler
# registry.tf    ECR                           tenants.tf              permissions of the tenants' jobs
# budget.tf      cost alarm                    outputs.tf              values for other tools

terraform {
  # In 1.11 the lock of the S3 backend (use_lockfile) stopped being experimental.
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.62.0"
    }
  }

  # Bucket, key and region come from an uncommitted file: terraform init -backend-config=backend.hcl
  # (backend.hcl.example). bootstrap/ creates the bucket once, outside this state.
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
