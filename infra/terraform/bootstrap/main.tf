# The bucket that holds Terraform's state, created once before infra/terraform. It has a local state of its own; keep
# terraform.tfstate of this directory, or import the bucket when you change it.

terraform {
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.62.0"
    }
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]
}

variable "account_id" {
  description = "The AWS account. Terraform refuses credentials of any other account."
  type        = string
}

variable "region" {
  description = "The region of the bucket."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket, unique in all of AWS."
  type        = string
}

resource "aws_s3_bucket" "state" {
  # checkov:skip=CKV_AWS_18: who reads the state is in CloudTrail; an access log needs a second bucket
  # checkov:skip=CKV_AWS_144: Terraform can import a lost state again, so no second region keeps it
  # checkov:skip=CKV_AWS_145: the account's default S3 encryption; an own key protects from nobody else in this account
  # checkov:skip=CKV2_AWS_62: nothing listens to events of this bucket
  bucket = var.bucket

  lifecycle {
    prevent_destroy = true
  }
}

# An earlier version is the backup of a state that was damaged.
resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket = aws_s3_bucket.state.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 90
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.state]
}

output "bucket" {
  description = "Name of the bucket, for backend.hcl."
  value       = aws_s3_bucket.state.id
}
