package parse

import "github.com/counterseal/counterseal/internal/event"

// native makes the parser of a JSON format whose names stay as they are.
func native(format, dataset string, times ...string) func(*event.Frame, Context, *event.Record) error {
	return func(f *event.Frame, c Context, r *event.Record) error {
		fields, err := flatten(format, f.Bytes)
		if err != nil {
			return err
		}
		r.Format = format + "/1"
		r.Dataset = dataset
		r.Fields = fields
		timeOf(r, c, times...)
		return nil
	}
}

// Identity providers and device management: objects under their own names.
var (
	parseSignin     = native("signin", "signin", "time", "timestamp", "@timestamp")
	parseOkta       = native("okta", "okta", "published")
	parseEntra      = native("entra-signin", "entra-signin", "createdDateTime", "CreatedDateTime", "properties.createdDateTime", "time", "TimeGenerated")
	parseMDM        = native("mdm", "mdm-device", "time", "last_check_in")
	parseCloudTrail = native("cloudtrail", "cloudtrail", "eventTime")
)
