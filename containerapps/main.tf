# The Job of job-identity.yaml with all that it needs, for Terraform or OpenTofu: a server
# that knows no passwords, the gate's identity, and the right to pull its image.
#
#     terraform apply -var resource_group=GROUP -var environment_id=ENVIRONMENT_ID \
#         -var registry=REGISTRY -var image=REGISTRY.azurecr.io/shop-migrations:1.0.0 \
#         -var server=SERVER -var administrator=YOU@DOMAIN
#
# Who applies it is the server's Entra administrator. What Terraform cannot do, making the
# role, the output `role` has as commands.
terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.0"
    }
  }
}

provider "azurerm" {
  features {}
}

variable "resource_group" {
  type = string
}

variable "environment_id" {
  description = "Of the Container Apps environment."
  type        = string
}

variable "registry" {
  description = "The registry's name; its resource is in the same group."
  type        = string
}

variable "image" {
  description = "The derived image, built with EXTRAS=azure."
  type        = string
}

variable "server" {
  description = "The name of the new server, unique in all of Azure."
  type        = string
}

variable "administrator" {
  description = "The user principal name of whoever applies this."
  type        = string
}

data "azurerm_client_config" "me" {}

data "azurerm_resource_group" "shop" {
  name = var.resource_group
}

data "azurerm_container_registry" "images" {
  name                = var.registry
  resource_group_name = var.resource_group
}

resource "azurerm_user_assigned_identity" "gate" {
  name                = "shop-gate"
  location            = data.azurerm_resource_group.shop.location
  resource_group_name = var.resource_group
}

resource "azurerm_role_assignment" "pull" {
  scope                = data.azurerm_container_registry.images.id
  role_definition_name = "AcrPull"
  principal_id         = azurerm_user_assigned_identity.gate.principal_id
}

resource "azurerm_postgresql_flexible_server" "shop" {
  name                = var.server
  location            = data.azurerm_resource_group.shop.location
  resource_group_name = var.resource_group
  version             = "17"
  sku_name            = "GP_Standard_D2ds_v5"
  storage_mb          = 32768

  # No administrator with a password, and no role with one.
  authentication {
    active_directory_auth_enabled = true
    password_auth_enabled         = false
    tenant_id                     = data.azurerm_client_config.me.tenant_id
  }

  lifecycle {
    # Azure chooses it.
    ignore_changes = [zone]
  }
}

resource "azurerm_postgresql_flexible_server_active_directory_administrator" "me" {
  server_name         = azurerm_postgresql_flexible_server.shop.name
  resource_group_name = var.resource_group
  tenant_id           = data.azurerm_client_config.me.tenant_id
  object_id           = data.azurerm_client_config.me.object_id
  principal_name      = var.administrator
  principal_type      = "User"
}

resource "azurerm_postgresql_flexible_server_database" "shop" {
  name      = "shop"
  server_id = azurerm_postgresql_flexible_server.shop.id
}

# Azure's own addresses, the environment's among them; a private endpoint is better.
resource "azurerm_postgresql_flexible_server_firewall_rule" "azure" {
  name             = "azure"
  server_id        = azurerm_postgresql_flexible_server.shop.id
  start_ip_address = "0.0.0.0"
  end_ip_address   = "0.0.0.0"
}

resource "azurerm_container_app_job" "gate" {
  name                         = "shop-migrate"
  location                     = data.azurerm_resource_group.shop.location
  resource_group_name          = var.resource_group
  container_app_environment_id = var.environment_id
  # Seconds; above GATE_TIMEOUT, so that the gate says why first.
  replica_timeout_in_seconds = 3600
  # What time mends, the gate retries itself; a failed migration fails once.
  replica_retry_limit = 0

  # Creating or updating it runs nothing: `az containerapp job start` does.
  manual_trigger_config {
    parallelism              = 1
    replica_completion_count = 1
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.gate.id]
  }

  registry {
    server   = data.azurerm_container_registry.images.login_server
    identity = azurerm_user_assigned_identity.gate.id
  }

  template {
    container {
      name   = "gate"
      image  = var.image
      args   = ["migrate"]
      cpu    = 0.25
      memory = "0.5Gi"

      env {
        name  = "POSTGRES_HOST"
        value = azurerm_postgresql_flexible_server.shop.fqdn
      }
      env {
        name  = "POSTGRES_DB"
        value = azurerm_postgresql_flexible_server_database.shop.name
      }
      env {
        name  = "POSTGRES_USER"
        value = azurerm_user_assigned_identity.gate.name
      }
      env {
        name  = "GATE_LOGIN"
        value = "azure"
      }
      env {
        name  = "AZURE_CLIENT_ID"
        value = azurerm_user_assigned_identity.gate.client_id
      }
      env {
        name  = "GATE_TIMEOUT"
        value = "55m"
      }
    }
  }

  depends_on = [azurerm_role_assignment.pull]
}

output "role" {
  description = "Makes the role, once."
  value       = <<-EOT
    export PGHOST=${azurerm_postgresql_flexible_server.shop.fqdn} PGUSER=${var.administrator}
    export PGSSLMODE=verify-full PGSSLROOTCERT=system
    export PGPASSWORD=$(az account get-access-token --resource-type oss-rdbms --query accessToken --output tsv)
    psql --dbname postgres --command "SELECT * FROM pgaadauth_create_principal('shop-gate', false, false)"
    psql --dbname shop --command 'GRANT CREATE ON SCHEMA public TO "shop-gate"'
  EOT
}
