{{- /*
Values of this chart, as the application's chart has them: under gate, where that is the
dependency's alias, or under its own name.
*/ -}}
{{- define "migration-gate.values" -}}
{{- $values := .Values.gate | default (index .Values "migration-gate") -}}
{{- if not $values -}}
{{- fail "the chart has no values under gate: give the dependency migration-gate the alias gate" -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}

{{- /* The image, by digest where there is one. */ -}}
{{- define "migration-gate.image" -}}
{{- $gate := include "migration-gate.values" . | fromYaml -}}
{{- with $gate.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default "0.1.0" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What the Job is called, but for the revision. */ -}}
{{- define "migration-gate.name" -}}
{{- printf "%s-migrate" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "migration-gate.labels" -}}
app.kubernetes.io/name: {{ include "migration-gate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/component: migration
{{- end -}}
