# Location

variable "account_id" {
  description = "The AWS account. Terraform refuses credentials of any other account."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must be 12 digits."
  }
}

variable "region" {
  description = "The region of all resources."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}-[a-z]+-[0-9]$", var.region))
    error_message = "region must look like us-east-1 (the standard AWS partition only)."
  }
}

variable "availability_zones" {
  description = "Two or three zones of the region, each with the pools' instance types. A fixed list, so that a new zone never moves a subnet."
  type        = list(string)
  default     = ["us-east-1a", "us-east-1b", "us-east-1c"]

  validation {
    condition     = length(var.availability_zones) >= 2 && length(var.availability_zones) <= 3
    error_message = "availability_zones must name two or three zones: EKS needs two, and the address plan holds three."
  }

  validation {
    condition = (
      length(distinct(var.availability_zones)) == length(var.availability_zones) &&
      alltrue([for zone in var.availability_zones : startswith(zone, var.region)])
    )
    error_message = "availability_zones must be different zones of region."
  }
}

variable "name" {
  description = "Name of the cluster, and prefix of all names."
  type        = string
  default     = "runway"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,28}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 30 lower-case letters, digits and hyphens, and start with a letter."
  }
}

# Network

variable "vpc_cidr" {
  description = "Private /16 of the VPC. Each zone gets a /20 for nodes and pods, and a /24 for its NAT gateway."
  type        = string
  default     = "10.80.0.0/16"

  validation {
    condition     = can(regex("^(10\\.[0-9]+|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\.0\\.0/16$", var.vpc_cidr)) && can(cidrhost(var.vpc_cidr, 0))
    error_message = "vpc_cidr must be a private /16 such as 10.80.0.0/16."
  }
}

variable "single_nat_gateway" {
  description = "One NAT gateway in the first zone for all zones. Cheaper, but a failure of that zone blocks all image pulls from outside AWS."
  type        = bool
  default     = false
}

# Access to the cluster

variable "api_private_cidrs" {
  description = "Private networks outside the VPC (VPN, peering) that may reach the API server's private endpoint on 443."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for cidr in var.api_private_cidrs :
      can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", cidr)) && can(cidrhost(cidr, 0)) && try(tonumber(split("/", cidr)[1]) >= 8, false)
    ])
    error_message = "api_private_cidrs must be private IPv4 networks such as 10.10.0.0/16."
  }
}

variable "api_public_cidrs" {
  description = "Public addresses that may reach the API server over the internet. Empty: there is no public endpoint."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for cidr in var.api_public_cidrs : can(cidrhost(cidr, 0)) && try(tonumber(split("/", cidr)[1]) >= 24, false)
    ])
    error_message = "api_public_cidrs must be IPv4 networks of at most 256 addresses: the API server is never open to the whole internet."
  }
}

variable "admin_role_arns" {
  description = "IAM roles that administer the cluster. The identity that runs Terraform gets no access."
  type        = set(string)

  validation {
    condition     = length(var.admin_role_arns) > 0 && alltrue([for arn in var.admin_role_arns : can(regex("^arn:aws:iam::[0-9]{12}:role/.+$", arn))])
    error_message = "admin_role_arns must hold at least one role ARN, or nobody could reach the cluster."
  }
}

variable "viewer_role_arns" {
  description = "IAM roles with read access to the cluster, without its Secrets."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.viewer_role_arns : can(regex("^arn:aws:iam::[0-9]{12}:role/.+$", arn)) && !contains(var.admin_role_arns, arn)])
    error_message = "viewer_role_arns must be role ARNs, and no administrator's."
  }
}

# Cluster

variable "kubernetes_version" {
  description = <<-EOT
    Minor version of Kubernetes. The autoscaler's image in infra/kubernetes must have the same version. EKS supports
    1.35 until 2027-03-27; after that day AWS upgrades the control plane, so upgrade before it.
  EOT
  type        = string
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version must be a minor version such as 1.35."
  }
}

variable "addon_versions" {
  description = "Pinned add-on versions by add-on name. Other add-ons keep the default version of kubernetes_version at their creation."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for name in keys(var.addon_versions) :
      contains(["coredns", "eks-node-monitoring-agent", "eks-pod-identity-agent", "kube-proxy", "metrics-server", "vpc-cni"], name)
    ])
    error_message = "addon_versions may name coredns, eks-node-monitoring-agent, eks-pod-identity-agent, kube-proxy, metrics-server and vpc-cni."
  }
}

variable "deletion_protection" {
  description = "EKS refuses to delete the cluster while this is true. Set to false and apply before a destroy."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "Retention of control-plane logs and flow logs, in days. Logs are the largest cost of an idle cluster after its nodes."
  type        = number
  default     = 90

  validation {
    condition     = contains([7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be 7 or more, and a value that CloudWatch supports (7, 14, 30, 60, 90, ..., 365, ...)."
  }
}

variable "flow_log_traffic" {
  description = "Traffic of the VPC that flow logs record: REJECT (refused connections), ACCEPT or ALL. ALL records every image pull."
  type        = string
  default     = "REJECT"

  validation {
    condition     = contains(["REJECT", "ACCEPT", "ALL"], var.flow_log_traffic)
    error_message = "flow_log_traffic must be REJECT, ACCEPT or ALL."
  }
}

# Nodes

variable "system_nodes" {
  description = "Nodes for Runway, CoreDNS, the autoscaler and monitoring. Always on, without jobs."
  type = object({
    instance_type = string
    count         = number
    disk_gib      = number
  })
  default = {
    instance_type = "m6i.xlarge"
    count         = 2
    disk_gib      = 100
  }

  validation {
    condition     = var.system_nodes.count >= 2 && var.system_nodes.count <= 10 && floor(var.system_nodes.count) == var.system_nodes.count
    error_message = "system_nodes.count must be 2 to 10: with one node, a failed one takes Runway and DNS with it."
  }

  validation {
    condition     = var.system_nodes.disk_gib >= 50 && var.system_nodes.disk_gib <= 1000
    error_message = "system_nodes.disk_gib must be 50 to 1000."
  }
}

variable "pools" {
  description = <<-EOT
    Nodes for jobs: one node group per pool of Runway's policy and zone. Each scales from zero. max_nodes is divided
    among the zones, so a pool with zones = ["us-east-1a"] can use all its nodes there. local_disk_gib is the size of
    the instance's own NVMe disks: if given, they hold images and scratch data.
    instance_type, cpu, memory, gpus and gpu_type must match the policy. cpu and memory are one node's share for jobs,
    below its nominal size. max_nodes limits the cost of the pool. spot means interruptible capacity: set the policy's
    hourly_usd to the spot price that you expect.
  EOT
  type = map(object({
    instance_type  = string
    cpu            = number # vCPUs for jobs
    memory_gib     = number # GiB for jobs
    gpus           = optional(number, 0)
    gpu_type       = optional(string) # the policy's gpu_type
    max_nodes      = number
    disk_gib       = optional(number, 200)
    local_disk_gib = optional(number, 0)
    spot           = optional(bool, false)
    zones          = optional(list(string)) # default: all of availability_zones
  }))
  default = {
    cpu = {
      instance_type = "m6i.4xlarge"
      cpu           = 15
      memory_gib    = 54
      max_nodes     = 10
    }
    a10g = {
      instance_type = "g5.12xlarge"
      cpu           = 46
      memory_gib    = 164
      gpus          = 4
      gpu_type      = "a10g"
      max_nodes     = 2
      # One NVMe disk of 3,800 GB: https://aws.amazon.com/ec2/instance-types/g5/
      local_disk_gib = 3500
    }
  }

  validation {
    condition     = length(var.pools) > 0 && alltrue([for name in keys(var.pools) : can(regex("^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$", name)) && name != "system"])
    error_message = "pools must be named like the policy's pools (a DNS label of up to 30 characters), and not system."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.max_nodes >= 1 && pool.max_nodes <= 100 && floor(pool.max_nodes) == pool.max_nodes])
    error_message = "max_nodes must be 1 to 100: it limits the cost."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : contains(range(0, 17), pool.gpus) && (pool.gpus > 0) == (pool.gpu_type != null)])
    error_message = "gpus must be a whole number up to 16, and gpus and gpu_type go together: give both or neither."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.cpu >= 1 && floor(pool.cpu) == pool.cpu && pool.memory_gib >= 1 && floor(pool.memory_gib) == pool.memory_gib])
    error_message = "cpu and memory_gib must be whole numbers of at least 1."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.disk_gib >= 50 && pool.disk_gib <= 2000 && floor(pool.disk_gib) == pool.disk_gib])
    error_message = "disk_gib must be a whole number from 50 to 2000."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.local_disk_gib == 0 || (pool.local_disk_gib >= 50 && floor(pool.local_disk_gib) == pool.local_disk_gib)])
    error_message = "local_disk_gib must be 0, or a whole number of at least 50."
  }

  validation {
    condition = alltrue([
      for pool in values(var.pools) : pool.zones == null ? true :
      length(pool.zones) > 0 && length(distinct(pool.zones)) == length(pool.zones) && length(setsubtract(pool.zones, var.availability_zones)) == 0
    ])
    error_message = "zones of a pool must be different zones of availability_zones."
  }
}

# Data of the tenants

variable "data_bucket" {
  description = "Name of an existing S3 bucket for the tenants' data. A tenant's jobs have access below TENANT/ only."
  type        = string
  default     = null

  validation {
    condition     = var.data_bucket == null || can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.data_bucket))
    error_message = "data_bucket must be a bucket name of 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "tenants" {
  description = "Tenants of the policy with pod_identity: true, by name, with their namespaces. Each gets an IAM role for its prefix of data_bucket."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(var.tenants) == 0 || var.data_bucket != null
    error_message = "tenants need data_bucket: their roles give access to a prefix of it."
  }

  validation {
    condition     = alltrue([for name in keys(var.tenants) : can(regex("^[a-z0-9]([a-z0-9-]{0,23}[a-z0-9])?$", name))])
    error_message = "tenants must be named as in the policy, with at most 25 characters: a role name has at most 64."
  }

  validation {
    condition     = alltrue([for namespace in values(var.tenants) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", namespace))])
    error_message = "tenants must name the namespaces of the policy."
  }

  validation {
    condition     = length(distinct(values(var.tenants))) == length(var.tenants)
    error_message = "tenants must have different namespaces."
  }
}

# Images and money

variable "repositories" {
  description = "ECR repositories. The policy's images.allow names jobs/*, so that Runway's own image cannot be run as a job."
  type        = set(string)
  default     = ["runway", "jobs/vision", "jobs/speech", "jobs/research"]

  validation {
    condition     = alltrue([for name in var.repositories : can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", name))])
    error_message = "repositories must be ECR repository names such as jobs/vision."
  }
}

variable "monthly_budget_usd" {
  description = "Monthly budget of the whole account in USD, the base of the alarms."
  type        = number

  validation {
    condition     = var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd must be above 0."
  }
}

variable "budget_emails" {
  description = "Recipients of the budget's alarms."
  type        = set(string)

  validation {
    condition     = length(var.budget_emails) > 0 && length(var.budget_emails) <= 10 && alltrue([for email in var.budget_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", email))])
    error_message = "budget_emails must hold one to ten addresses, so that somebody receives the alarm."
  }
}
